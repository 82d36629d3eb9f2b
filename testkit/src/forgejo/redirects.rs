//! Forgejo's rule for redirect URIs, which is neither exact comparison nor RFC 8252 throughout.

use url::{Host, Url};

use super::instance::Application;

impl Application {
    /// Compares a redirect URI with the registered ones, without regard to case and to one trailing
    /// slash. A loopback address over http may have any port for a public client (RFC 8252 section
    /// 7.3); `localhost` may not.
    pub(super) fn accepts_redirect(&self, uri: &str) -> bool {
        let is_registered = |uri: &str| {
            let wanted = normalize(uri);
            self.redirect_uris.iter().any(|uri| normalize(uri) == wanted)
        };
        is_registered(uri) || (!self.confidential && without_loopback_port(uri).is_some_and(|uri| is_registered(&uri)))
    }
}

fn normalize(uri: &str) -> String {
    let lower = uri.to_lowercase();
    lower.strip_suffix('/').map_or(lower.clone(), str::to_owned)
}

fn without_loopback_port(uri: &str) -> Option<String> {
    let mut url = Url::parse(uri).ok().filter(|url| url.scheme() == "http")?;
    url.port()?;
    let loopback = match url.host()? {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(_) => false,
    };
    url.set_port(None).ok()?;
    loopback.then(|| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(confidential: bool, redirect_uri: &str) -> Application {
        Application {
            id: 1,
            name: "test".to_owned(),
            client_id: String::new(),
            secret: String::new(),
            redirect_uris: vec![redirect_uri.to_owned()],
            confidential,
        }
    }

    #[test]
    fn redirects_match_whole_except_for_case_and_one_slash() {
        let app = application(true, "https://Broker.example/oauth/callback");
        assert!(app.accepts_redirect("https://broker.example/OAuth/callback/"));
        assert!(!app.accepts_redirect("https://broker.example/oauth/callback//"));
        assert!(!app.accepts_redirect("https://broker.example/oauth/callback?a=b"));
        assert!(!app.accepts_redirect("https://broker.example/oauth"));
    }

    #[test]
    fn any_port_is_for_public_clients_on_a_literal_loopback_address() {
        let public = application(false, "http://127.0.0.1/callback");
        assert!(public.accepts_redirect("http://127.0.0.1:4711/callback"));
        assert!(!public.accepts_redirect("https://127.0.0.1:4711/callback"));
        assert!(!application(true, "http://127.0.0.1/callback").accepts_redirect("http://127.0.0.1:4711/callback"));
        assert!(!application(false, "http://localhost/callback").accepts_redirect("http://localhost:4711/callback"));
        assert!(!application(false, "http://127.0.0.1:1/callback").accepts_redirect("http://127.0.0.1:2/callback"));
        assert!(application(false, "http://[::1]/callback").accepts_redirect("http://[::1]:2/callback"));
    }
}
