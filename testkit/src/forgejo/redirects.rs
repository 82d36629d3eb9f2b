//! Which redirect URIs an application may use: Forgejo's rule, which is neither exact nor RFC 8252 throughout.

use url::{Host, Url};

use super::state::Application;

impl Application {
    /// Whether a redirect URI is one of the registered ones: without regard to case and to one trailing slash. For a
    /// public client a loopback address over http may have any port (RFC 8252 section 7.3); `localhost` may not.
    pub(super) fn accepts_redirect(&self, uri: &str) -> bool {
        let known = |uri: &str| {
            let wanted = plain(uri);
            self.redirect_uris.iter().any(|registered| plain(registered) == wanted)
        };
        known(uri) || (!self.confidential && without_loopback_port(uri).is_some_and(|uri| known(&uri)))
    }
}

fn plain(uri: &str) -> String {
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
    use super::Application;

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
    fn redirects_match_whole_but_for_case_and_one_slash() {
        let app = application(true, "https://Broker.example/oauth/callback");
        assert!(app.accepts_redirect("https://broker.example/OAuth/callback/"));
        assert!(!app.accepts_redirect("https://broker.example/oauth/callback//"));
        assert!(!app.accepts_redirect("https://broker.example/oauth/callback?a=b"));
        assert!(!app.accepts_redirect("https://broker.example/oauth"));
    }

    #[test]
    fn only_public_clients_have_any_port_and_only_on_a_literal_loopback_address() {
        let public = application(false, "http://127.0.0.1/callback");
        assert!(public.accepts_redirect("http://127.0.0.1:4711/callback"));
        assert!(!public.accepts_redirect("https://127.0.0.1:4711/callback"));
        assert!(!application(true, "http://127.0.0.1/callback").accepts_redirect("http://127.0.0.1:4711/callback"));
        assert!(!application(false, "http://localhost/callback").accepts_redirect("http://localhost:4711/callback"));
        assert!(!application(false, "http://127.0.0.1:1/callback").accepts_redirect("http://127.0.0.1:2/callback"));
        assert!(application(false, "http://[::1]/callback").accepts_redirect("http://[::1]:2/callback"));
    }
}
