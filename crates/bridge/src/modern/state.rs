//! The `requestState` of a request that waits for input: sealed, so that no client can make or
//! change one, and bound to all that has to be equal when it comes back.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The longest state that is opened, in characters.
const MAX_CHARS: usize = 1024;
const FORMAT: u8 = 1;

/// Seals the states of requests. The key outlives a restart.
pub trait StateSealer: fmt::Debug + Send + Sync + 'static {
    /// Seals bytes for a principal and a time, with authentication (AEAD).
    fn seal(&self, principal: &str, plain: &[u8], life: Duration) -> Vec<u8>;

    /// Opens what [`seal`](Self::seal) has made for the same principal, within its life; `None` for
    /// anything else.
    fn open(&self, principal: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// The content of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestState {
    /// The session whose server runs the request.
    pub(crate) tag: Box<str>,
    /// The instance of the conversation.
    pub(crate) epoch: u64,
    /// The request that waits at its server; `None` if the retry begins again.
    pub(crate) call: Option<u64>,
    /// Grows with each result that asks for input.
    pub(crate) round: u32,
    /// The digest of method, name and arguments.
    pub(crate) content: [u8; 16],
}

impl RequestState {
    pub(crate) fn seal(&self, sealer: &dyn StateSealer, principal: &str, life: Duration) -> String {
        let call = self.call.unwrap_or_default();
        let plain = [
            &[FORMAT, u8::from(self.call.is_some())][..],
            &self.epoch.to_be_bytes(),
            &call.to_be_bytes(),
            &self.round.to_be_bytes(),
            &self.content,
            self.tag.as_bytes(),
        ];
        URL_SAFE_NO_PAD.encode(sealer.seal(principal, &plain.concat(), life))
    }

    /// Opens a state; `None` if it was not sealed here for this principal.
    pub(crate) fn open(text: &str, sealer: &dyn StateSealer, principal: &str) -> Option<Self> {
        if text.len() > MAX_CHARS {
            return None;
        }
        let plain = sealer.open(principal, &URL_SAFE_NO_PAD.decode(text).ok()?)?;
        let (&[format, waits], rest) = plain.split_first_chunk()?;
        let (&epoch, rest) = rest.split_first_chunk()?;
        let (&call, rest) = rest.split_first_chunk()?;
        let (&round, rest) = rest.split_first_chunk()?;
        let (&content, tag) = rest.split_first_chunk()?;
        (format == FORMAT).then_some(Self {
            tag: std::str::from_utf8(tag).ok()?.into(),
            epoch: u64::from_be_bytes(epoch),
            call: (waits == 1).then_some(u64::from_be_bytes(call)),
            round: u32::from_be_bytes(round),
            content,
        })
    }
}

/// A sealer for tests: it binds to the principal, and detects changes.
#[cfg(test)]
pub(crate) mod testing {
    use std::time::Duration;

    use sha2::{Digest, Sha256};

    use super::StateSealer;

    #[derive(Debug)]
    pub(crate) struct TestSealer;

    impl StateSealer for TestSealer {
        fn seal(&self, principal: &str, plain: &[u8], _life: Duration) -> Vec<u8> {
            let mac = Sha256::digest([principal.as_bytes(), b"/", plain].concat());
            [&mac[..], plain].concat()
        }

        fn open(&self, principal: &str, sealed: &[u8]) -> Option<Vec<u8>> {
            let (_, plain) = sealed.split_first_chunk::<32>()?;
            (self.seal(principal, plain, Duration::ZERO) == sealed).then(|| plain.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::TestSealer, *};

    #[test]
    fn only_an_unchanged_state_of_the_same_principal_opens() {
        let state = RequestState {
            tag: "0a1b2c3d".into(),
            epoch: 7,
            call: Some(3),
            round: 2,
            content: [9; 16],
        };
        let sealed = state.seal(&TestSealer, "grant", Duration::ZERO);
        assert!(sealed.len() < 512);
        assert_eq!(RequestState::open(&sealed, &TestSealer, "grant"), Some(state.clone()));
        for wrong in [
            RequestState::open(&sealed, &TestSealer, "other"),
            RequestState::open(&format!("{sealed}-TAMPERED"), &TestSealer, "grant"),
            RequestState::open("", &TestSealer, "grant"),
            RequestState::open(&"A".repeat(MAX_CHARS + 1), &TestSealer, "grant"),
        ] {
            assert_eq!(wrong, None);
        }
        let again = RequestState { call: None, ..state };
        let sealed = again.seal(&TestSealer, "grant", Duration::ZERO);
        assert_eq!(RequestState::open(&sealed, &TestSealer, "grant"), Some(again));
    }
}
