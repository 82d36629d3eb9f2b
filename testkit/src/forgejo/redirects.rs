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

    #[test]
    fn redirects_ignore_case_one_slash_and_a_public_clients_port_on_a_literal_loopback_address() {
        for row in "confidential https://Broker.example/callback https://broker.example/CallBack/   yes
            confidential https://Broker.example/callback https://broker.example/callback//  no
            confidential https://Broker.example/callback https://broker.example/callback?a=b  no
            confidential https://Broker.example/callback https://broker.example/call  no
            public       http://127.0.0.1/callback    http://127.0.0.1:4711/callback   yes
            public       http://127.0.0.1/callback    https://127.0.0.1:4711/callback  no
            confidential http://127.0.0.1/callback    http://127.0.0.1:4711/callback   no
            public       http://localhost/callback    http://localhost:4711/callback   no
            public       http://127.0.0.1:1/callback  http://127.0.0.1:2/callback      no
            public       http://[::1]/callback        http://[::1]:2/callback          yes"
            .lines()
        {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [kind, registered, uri, accepted] = columns[..] else {
                panic!("{row}")
            };
            let application = Application {
                redirect_uris: vec![registered.to_owned()],
                confidential: kind == "confidential",
                ..Application::default()
            };
            assert_eq!(application.accepts_redirect(uri), accepted == "yes", "{row}");
        }
    }
}
