//! JSON Web Tokens that clients sign: parsing, and verification with a key set (RFC 7515, 7517,
//! 7518).
//!
//! The claims of a token count only after [`Jwt::verify`]. The algorithms are ES256 and RS256, and
//! each key fits one of them: no header can select `none` or a symmetric algorithm.
//! `server::client_auth` checks the meaning of the claims.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

/// The algorithms, by their names in metadata.
pub(crate) const ALGORITHMS: [&str; 2] = [ES256, RS256];
const ES256: &str = "ES256";
const RS256: &str = "RS256";

/// The longest token, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// The largest number of keys in a set.
const MAX_KEYS: usize = 20;
/// The longest modulus of an RSA key, in bytes: verification with a longer one costs too much.
const MAX_MODULUS: usize = 512;

/// A token whose signature is not verified yet.
#[derive(Debug)]
pub(crate) struct Jwt<'t> {
    header: Header,
    claims: Claims,
    signed: &'t [u8],
    signature: Vec<u8>,
}

/// The claims of a token (RFC 7519 section 4.1).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: Option<String>,
    pub(crate) sub: Option<String>,
    pub(crate) aud: Option<Audience>,
    pub(crate) exp: Option<f64>,
    pub(crate) nbf: Option<f64>,
    pub(crate) iat: Option<f64>,
    pub(crate) jti: Option<String>,
}

/// One audience or several (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The public keys of a client.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

/// The reason why a signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureError {
    /// The set has no key for this token.
    UnknownKey,
    /// The token was not signed with the key that it names.
    BadSignature,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: PublicKey,
}

#[derive(Debug)]
enum PublicKey {
    /// An uncompressed point.
    P256(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl<'t> Jwt<'t> {
    /// Parses a token in compact form.
    pub(crate) fn parse(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        // RFC 7515 section 4.1.11: a critical extension that is not understood makes the token
        // invalid; none is here.
        if header.crit.is_some() || !ALGORITHMS.contains(&header.alg.as_str()) {
            return None;
        }
        Some(Self {
            header,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// The claims, which anyone may have made up.
    pub(crate) fn unverified(&self) -> &Claims {
        &self.claims
    }

    /// Verifies the signature with the key that the token names, or with any key that fits if it
    /// names none.
    pub(crate) fn verify(&self, keys: &KeySet) -> Result<&Claims, SignatureError> {
        let candidates = keys.0.iter().filter(|key| {
            let key_id = &self.header.kid;
            key.public.algorithm() == self.header.alg && (key_id.is_none() || key.id.is_none() || key.id == *key_id)
        });
        let mut result = Err(SignatureError::UnknownKey);
        for key in candidates {
            if key.public.has_signed(self.signed, &self.signature) {
                return Ok(&self.claims);
            }
            result = Err(SignatureError::BadSignature);
        }
        result
    }
}

impl Audience {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl KeySet {
    /// Parses a JWK Set. Keys for other algorithms are ignored (RFC 7517 section 5).
    ///
    /// # Errors
    ///
    /// The reason, for the client's developer.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Jwks = serde_json::from_slice(json).map_err(|_| "the keys are not a JWK Set")?;
        if set.keys.len() > MAX_KEYS {
            return Err("the JWK Set has more than twenty keys");
        }
        // A published private or symmetric key is no secret any more.
        let is_secret = |key: &Value| key.get("d").is_some() || key.get("k").is_some();
        if set.keys.iter().any(is_secret) {
            return Err("the JWK Set contains a private or symmetric key");
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::parse).collect();
        if keys.is_empty() {
            return Err("the JWK Set has no key for ES256 or RS256");
        }
        Ok(Self(keys))
    }
}

impl Key {
    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = jwk.usage.is_none_or(|usage| usage == "sig")
            && jwk.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                // RFC 7518 section 6.2.1.2: both coordinates have the length of the field.
                let (x, y) = (decode(&jwk.x?)?, decode(&jwk.y?)?);
                (x.len() == 32 && y.len() == 32).then(|| PublicKey::P256([&[4], &x[..], &y[..]].concat()))?
            }
            ("RSA", _) => {
                let (modulus, exponent) = (decode(&jwk.n?)?, decode(&jwk.e?)?);
                // Some issuers write leading zeros, which RFC 7518 section 2 does not allow.
                let modulus: Vec<u8> = modulus.into_iter().skip_while(|byte| *byte == 0).collect();
                (modulus.len() <= MAX_MODULUS).then_some(PublicKey::Rsa { modulus, exponent })?
            }
            _ => return None,
        };
        let is_usable = is_for_signatures && jwk.alg.is_none_or(|name| name == public.algorithm());
        is_usable.then_some(Self { id: jwk.kid, public })
    }
}

impl PublicKey {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => ES256,
            Self::Rsa { .. } => RS256,
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // RFC 7518 section 3.4: the two numbers are concatenated, not DER.
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::Rsa { modulus, exponent } => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        }
        .is_ok()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use serde_json::json;

    use super::*;

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn pair() -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
    }

    fn jwk(pair: &EcdsaKeyPair, more: &Value) -> Value {
        let point = pair.public_key().as_ref();
        let mut jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])});
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    fn keys(keys: &[Value]) -> Result<KeySet, &'static str> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn token(pair: &EcdsaKeyPair, header: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(r#"{"iss":"me"}"#));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }

    #[test]
    fn a_token_signed_with_a_key_of_the_set_verifies() {
        let pair = pair();
        let token = token(&pair, &json!({"alg": "ES256"}));
        let jwt = Jwt::parse(&token).unwrap();
        let claims = jwt.verify(&keys(&[jwk(&pair, &json!({}))]).unwrap()).unwrap();
        assert_eq!(claims.iss.as_deref(), Some("me"));
    }

    #[test]
    fn another_key_changed_claims_or_another_signature_do_not_verify() {
        let (mine, other) = (pair(), pair());
        let good = token(&mine, &json!({"alg": "ES256"}));
        let set = keys(&[jwk(&mine, &json!({}))]).unwrap();
        let forged = token(&other, &json!({"alg": "ES256"}));
        assert_eq!(
            Jwt::parse(&forged).unwrap().verify(&set).unwrap_err(),
            SignatureError::BadSignature
        );
        let mut parts: Vec<&str> = good.split('.').collect();
        let lie = encode(r#"{"iss":"you"}"#);
        parts[1] = &lie;
        assert!(Jwt::parse(&parts.join(".")).unwrap().verify(&set).is_err());
        parts = good.split('.').collect();
        parts[2] = "";
        assert!(Jwt::parse(&parts.join(".")).unwrap().verify(&set).is_err());
    }

    #[test]
    fn only_the_named_key_verifies() {
        let (mine, other) = (pair(), pair());
        let set = keys(&[jwk(&mine, &json!({"kid": "a"})), jwk(&other, &json!({"kid": "b"}))]).unwrap();
        let by = |pair: &EcdsaKeyPair, kid: &str| {
            let token = token(pair, &json!({"alg": "ES256", "kid": kid}));
            Jwt::parse(&token).unwrap().verify(&set).map(|_| ())
        };
        assert_eq!(by(&mine, "a"), Ok(()));
        assert_eq!(by(&mine, "b"), Err(SignatureError::BadSignature));
        assert_eq!(by(&mine, "c"), Err(SignatureError::UnknownKey));
    }

    #[test]
    fn a_header_cannot_select_a_weaker_algorithm() {
        let pair = pair();
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "None"}),
            json!({"alg": "HS256"}),
            json!({"alg": "ES256", "crit": ["exp"]}),
            json!({"alg": ""}),
            json!({}),
        ] {
            assert!(Jwt::parse(&token(&pair, &header)).is_none(), "{header}");
        }
        // A key for one algorithm does not verify another.
        let token = token(&pair, &json!({"alg": "RS256"}));
        let set = keys(&[jwk(&pair, &json!({}))]).unwrap();
        assert_eq!(
            Jwt::parse(&token).unwrap().verify(&set).unwrap_err(),
            SignatureError::UnknownKey
        );
        for text in ["", ".", "..", "a.b", "a.b.c", "e30.e30.", "é.é.é"] {
            assert!(Jwt::parse(text).is_none(), "{text:?}");
        }
        assert!(Jwt::parse(&"a".repeat(MAX_TOKEN + 1)).is_none());
    }

    #[test]
    fn unsuitable_keys_are_ignored_and_private_keys_refused() {
        let pair = pair();
        for useless in [
            jwk(&pair, &json!({"use": "enc"})),
            jwk(&pair, &json!({"alg": "ES384"})),
            jwk(&pair, &json!({"key_ops": ["encrypt"]})),
            jwk(&pair, &json!({"x": "AA"})),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
            json!({"kty": "RSA", "n": encode(vec![1; MAX_MODULUS + 1]), "e": "AQAB"}),
            json!("x"),
        ] {
            assert!(keys(std::slice::from_ref(&useless)).is_err(), "{useless}");
            assert!(keys(&[useless, jwk(&pair, &json!({}))]).is_ok());
        }
        assert!(keys(&[jwk(&pair, &json!({"d": "AA"}))]).is_err());
        assert!(keys(&[jwk(&pair, &json!({})), json!({"kty": "oct", "k": "AA"})]).is_err());
        assert!(keys(&vec![jwk(&pair, &json!({})); MAX_KEYS + 1]).is_err());
        assert!(KeySet::parse(b"[]").is_err());
    }
}
