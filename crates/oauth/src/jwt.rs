//! Signed tokens of clients: reading one, and checking its signature with a key set (RFC 7515, 7517, 7518).
//!
//! What a token says counts only after [`Jwt::verify`]. The algorithms are ES256 and RS256, and each key fits one of
//! them: `none` and the symmetric ones have no name here, so that no header can ask for them. What the claims mean is
//! the business of `server::client_auth`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

/// The algorithms, as metadata names them.
pub(crate) const ALGORITHMS: [&str; 2] = ["ES256", "RS256"];

/// The longest token, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How many keys of a set are looked at.
const MAX_KEYS: usize = 20;
/// The longest modulus of an RSA key, in bytes: checking a longer one costs too much.
const MAX_MODULUS: usize = 512;

/// A token whose signature has not been checked.
#[derive(Debug)]
pub(crate) struct Jwt<'t> {
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Claims,
    signed: &'t [u8],
    signature: Vec<u8>,
}

/// What a token says.
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

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// No key of the set is meant.
    NoKey,
    /// The key that is meant has not made the signature.
    BadSignature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
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

#[derive(Deserialize)]
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
    /// Reads a token in compact form.
    pub(crate) fn parse(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        // RFC 7515 section 4.1.11: what is critical and not understood makes the token invalid, and nothing is.
        if header.crit.is_some() {
            return None;
        }
        let algorithm = match header.alg.as_str() {
            "ES256" => Algorithm::Es256,
            "RS256" => Algorithm::Rs256,
            _ => return None,
        };
        Some(Self {
            algorithm,
            key_id: header.kid,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// What the token says of itself, which may be a lie.
    pub(crate) fn unverified(&self) -> &Claims {
        &self.claims
    }

    /// Checks the signature: by the key that is named, else by any that fits.
    pub(crate) fn verify(&self, keys: &KeySet) -> Result<&Claims, Unverified> {
        let meant = keys.0.iter().filter(|key| {
            key.public.algorithm() == self.algorithm
                && (self.key_id.is_none() || key.id.is_none() || key.id == self.key_id)
        });
        let mut outcome = Err(Unverified::NoKey);
        for key in meant {
            if key.public.has_signed(self.signed, &self.signature) {
                return Ok(&self.claims);
            }
            outcome = Err(Unverified::BadSignature);
        }
        outcome
    }
}

impl Audience {
    /// All of them.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl KeySet {
    /// Reads a JWK Set. Keys that are not for these algorithms are passed over (RFC 7517 section 5).
    ///
    /// # Errors
    ///
    /// What is wrong with it, for the client's developer.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Jwks = serde_json::from_slice(json).map_err(|_| "it is no JWK Set")?;
        if set.keys.len() > MAX_KEYS {
            return Err("the JWK Set has more than twenty keys");
        }
        // A set that shows a private or symmetric key shows it to all.
        if set
            .keys
            .iter()
            .any(|key| key.get("d").is_some() || key.get("k").is_some())
        {
            return Err("the JWK Set holds a key that must not be published");
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("the JWK Set has no key for ES256 or RS256");
        }
        Ok(Self(keys))
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return None;
        }
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                // RFC 7518 section 6.2.1.2: both have the length of the field.
                let (x, y) = (decode(&jwk.x?)?, decode(&jwk.y?)?);
                (x.len() == 32 && y.len() == 32).then(|| PublicKey::P256([&[4], &x[..], &y[..]].concat()))?
            }
            ("RSA", _) => {
                let (modulus, exponent) = (decode(&jwk.n?)?, decode(&jwk.e?)?);
                // Some write a zero before the number, which RFC 7518 section 2 does not.
                let modulus = modulus
                    .iter()
                    .copied()
                    .skip_while(|byte| *byte == 0)
                    .collect::<Vec<_>>();
                (modulus.len() <= MAX_MODULUS).then_some(PublicKey::Rsa { modulus, exponent })?
            }
            _ => return None,
        };
        let named = jwk.alg.is_none_or(|name| name == public.algorithm().name());
        named.then_some(Self { id: jwk.kid, public })
    }
}

impl PublicKey {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::Es256,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // RFC 7518 section 3.4: the two numbers one after the other, not DER.
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

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => ALGORITHMS[0],
            Self::Rs256 => ALGORITHMS[1],
        }
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
    fn the_owner_of_a_key_is_believed() {
        let pair = pair();
        let token = token(&pair, &json!({"alg": "ES256"}));
        let jwt = Jwt::parse(&token).unwrap();
        let claims = jwt.verify(&keys(&[jwk(&pair, &json!({}))]).unwrap()).unwrap();
        assert_eq!(claims.iss.as_deref(), Some("me"));
    }

    #[test]
    fn another_key_another_text_or_another_signature_is_not() {
        let (mine, other) = (pair(), pair());
        let good = token(&mine, &json!({"alg": "ES256"}));
        let set = keys(&[jwk(&mine, &json!({}))]).unwrap();
        let forged = token(&other, &json!({"alg": "ES256"}));
        assert_eq!(
            Jwt::parse(&forged).unwrap().verify(&set).unwrap_err(),
            Unverified::BadSignature
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
    fn the_key_that_is_named_is_the_one_that_counts() {
        let (mine, other) = (pair(), pair());
        let set = keys(&[jwk(&mine, &json!({"kid": "a"})), jwk(&other, &json!({"kid": "b"}))]).unwrap();
        let by = |pair: &EcdsaKeyPair, kid: &str| {
            let token = token(pair, &json!({"alg": "ES256", "kid": kid}));
            Jwt::parse(&token).unwrap().verify(&set).map(|_| ())
        };
        assert_eq!(by(&mine, "a"), Ok(()));
        assert_eq!(by(&mine, "b"), Err(Unverified::BadSignature));
        assert_eq!(by(&mine, "c"), Err(Unverified::NoKey));
    }

    #[test]
    fn a_header_cannot_choose_a_weaker_way() {
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
        // A key of one kind is not one of another.
        let token = token(&pair, &json!({"alg": "RS256"}));
        let set = keys(&[jwk(&pair, &json!({}))]).unwrap();
        assert_eq!(Jwt::parse(&token).unwrap().verify(&set).unwrap_err(), Unverified::NoKey);
        for text in ["", ".", "..", "a.b", "a.b.c", "e30.e30.", "é.é.é"] {
            assert!(Jwt::parse(text).is_none(), "{text:?}");
        }
        assert!(Jwt::parse(&"a".repeat(MAX_TOKEN + 1)).is_none());
    }

    #[test]
    fn keys_for_something_else_are_passed_over_and_secret_ones_refused() {
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
