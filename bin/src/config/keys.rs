//! The table of all keys: what each is, its form, its default. The reader takes defaults from here and refuses keys
//! that are not here; the reference is printed from here. So the three cannot drift apart.

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted path: `section.name`.
    pub path: &'static str,
    /// What a value looks like.
    pub form: Form,
    /// What holds if nobody sets the key.
    pub default: Default,
    /// What it means, for the reference.
    pub text: &'static str,
}

/// What holds if nobody sets a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value, as TOML.
    Value(&'static str),
    /// Nothing: what the key would turn on stays off.
    Unset,
    /// The operator has to set the key.
    Required,
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// Text that is never printed. It has a twin `NAME_file` that names a file with the value.
    Secret,
    /// An absolute `http` or `https` URL.
    Url,
    /// `IP:PORT`.
    Address,
    /// A duration such as `"15m"` or `"1h 30m"`.
    Duration,
    /// A whole number above zero.
    Count,
    /// A number of bytes, such as `"512MiB"`.
    Bytes,
    /// The first and the last number of a range.
    Range,
    /// `true` or `false`.
    Flag,
    /// An array of texts.
    List,
    /// A table of texts.
    Table,
    /// An array of tables.
    Tables,
    /// A path, relative to the working directory.
    Path,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// The keys that `[[oauth.clients]]` may hold.
pub const CLIENT_KEYS: &[&str] = &[
    "client_id",
    "client_secret",
    "client_secret_file",
    "client_name",
    "redirect_uris",
];

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "server.listen",
        Form::Address,
        "\"127.0.0.1:8080\"",
        "The address that the broker listens on.",
    ),
    key(
        "server.public_url",
        Form::Url,
        "\"http://127.0.0.1:8080\"",
        "The URL under which clients reach the broker; it is the OAuth issuer, and everything that the broker \
         publishes derives from it, never from request headers. `https`, unless the host is a loopback address. It may have a path.",
    ),
    key(
        "server.allowed_hosts",
        Form::List,
        "[]",
        "Values of the `Host` header that are answered besides the host of `public_url`.",
    ),
    key(
        "server.allowed_origins",
        Form::List,
        "[]",
        "Values of the `Origin` header that are answered besides the origin of `public_url`, such as \
         `\"http://localhost:6274\"`.",
    ),
    key(
        "server.drain_timeout",
        Form::Duration,
        "\"10s\"",
        "After SIGTERM: how long exchanges in flight may take to finish.",
    ),
    required("forgejo.url", Form::Url, "The root URL of the Forgejo instance."),
    required(
        "forgejo.client_id",
        Form::Text,
        "The client id of the OAuth2 application that was registered there.",
    ),
    required("forgejo.client_secret", Form::Secret, "Its client secret."),
    required(
        "forgejo.scopes",
        Form::List,
        "What the broker asks each user for. At least one must be an API scope (`read:user`, `write:repository`, ...): \
         Forgejo gives a token **without any API scope full access**, so the broker refuses to start with such a list. \
         `read:user` is needed to know who signed in.",
    ),
    key(
        "forgejo.allowed_users",
        Form::List,
        "[]",
        "Logins that may sign in. Empty: everyone, or whom `allowed_orgs` lets in.",
    ),
    key(
        "forgejo.allowed_orgs",
        Form::List,
        "[]",
        "Organisations whose members may sign in; needs the scope `read:organization`. Empty: everyone, or whom \
         `allowed_users` lets in.",
    ),
    key(
        "child.mode",
        Form::OneOf(&["process", "http"]),
        "\"process\"",
        "`process`: each session has a child of its own. `http`: all sessions share one MCP server that the operator runs, and each \
         request carries its user's token; nothing is started, and of this section only `upstream`, `start_timeout` and \
         `stop_grace` may be set. Which to take: [upstream](upstream.md).",
    ),
    key(
        "child.command",
        Form::Text,
        "\"forgejo-mcp\"",
        "The MCP server that is started for each session, without a shell.",
    ),
    key(
        "child.args",
        Form::List,
        "[\"--transport\", \"stdio\", \"--url\", \"{forgejo_url}\"]",
        "Its arguments. `{forgejo_url}` is replaced. `{access_token}` is refused here: arguments can be read by every \
         user of the machine.",
    ),
    key(
        "child.env",
        Form::Table,
        "{ FORGEJO_ACCESS_TOKEN = \"{access_token}\" }",
        "Its environment variables, beside a short list of harmless ones that it inherits (`PATH`, `HOME`, `LANG`, ...). \
         `{forgejo_url}` and `{access_token}` are replaced. Setting the key replaces the whole table.",
    ),
    key(
        "child.start_timeout",
        Form::Duration,
        "\"30s\"",
        "How long it may take to start. With `mode = \"http\"`: how long the handshake of a session that is opened or woken may take; \
         one that the server has forgotten gets twice that to be opened anew.",
    ),
    key(
        "child.stop_grace",
        Form::Duration,
        "\"5s\"",
        "How long it may take to stop after SIGTERM before it is killed. With `mode = \"http\"`: how long the server may take to be \
         told that a session has ended.",
    ),
    key(
        "child.inherit_env",
        Form::List,
        "[\"PATH\", \"LANG\", \"LC_ALL\", \"LC_CTYPE\", \"TZ\", \"SSL_CERT_FILE\", \"SSL_CERT_DIR\"]",
        "Names of the broker's variables that it inherits. `HOME` and `TMPDIR` name its own directory unless they are listed.",
    ),
    key(
        "child.secret_files",
        Form::List,
        "[]",
        "Variables of `child.env` whose value is written to a private file; the variable is then its path.",
    ),
    key(
        "child.secret_descriptors",
        Form::List,
        "[]",
        "Variables of `child.env` whose value is given once through a pipe; the variable is then the number of its descriptor.",
    ),
    key(
        "child.stderr_lines_per_second",
        Form::Count,
        "50",
        "How many lines of its standard error are logged, on average; ten seconds' worth may come at once.",
    ),
    key(
        "child.require_isolation",
        Form::Flag,
        "false",
        "Whether the broker refuses to start where a layer of the isolation is missing, instead of logging a warning.",
    ),
    key(
        "child.limits.open_files",
        Form::Count,
        "1024",
        "Open descriptors, for each process.",
    ),
    optional(
        "child.limits.address_space",
        Form::Bytes,
        "Address space, for each process. Not for programs with a large garbage-collected heap, such as Node.",
    ),
    optional(
        "child.limits.cpu_time",
        Form::Duration,
        "Processor time, for each process, in whole seconds; then it is ended.",
    ),
    optional(
        "child.limits.processes",
        Form::Count,
        "Processes and threads: of the child with a control group, else of its user (root is exempt), so use it with \
         `isolation.users`.",
    ),
    optional(
        "child.limits.memory",
        Form::Bytes,
        "Memory of all processes of a child together. Needs a control group with the memory controller.",
    ),
    key(
        "child.isolation.no_new_privileges",
        Form::Flag,
        "true",
        "It gains no privileges, whatever it executes. `landlock` needs this.",
    ),
    key(
        "child.isolation.drop_capabilities",
        Form::Flag,
        "true",
        "It has no capabilities, even if the broker is root.",
    ),
    key(
        "child.isolation.landlock",
        Form::Flag,
        "true",
        "It sees files by an allow-list, and cannot signal or trace processes that it did not start.",
    ),
    key(
        "child.isolation.readable",
        Form::List,
        "[]",
        "Whole paths that it may read and execute beyond the default list: where a server's modules lie, say.",
    ),
    key(
        "child.isolation.writable",
        Form::List,
        "[]",
        "Whole paths that it may read and change beyond its own directory.",
    ),
    key(
        "child.isolation.own_directory",
        Form::Flag,
        "true",
        "It works in an empty directory of its own, which is removed after its end.",
    ),
    optional(
        "child.isolation.directory",
        Form::Path,
        "Where these directories are made; unset, in `TMPDIR` or `/tmp`. Other users must be able to pass through it if \
         `isolation.users` is set.",
    ),
    optional(
        "child.isolation.users",
        Form::Range,
        "Users that children run as, each its own: `[first, last]`. Needs root and a range that nobody else uses.",
    ),
    optional(
        "child.isolation.cgroup",
        Form::Path,
        "A directory of the control group file system (version 2) that was given to the broker, and that has no processes \
         itself: each child gets a group in it.",
    ),
    optional(
        "child.upstream.url",
        Form::Url,
        "With `mode = \"http\"`: the URL of the server's MCP endpoint, such as `\"http://127.0.0.1:8081/mcp\"`. `https`, unless the \
         host is a loopback address: every request carries a user's token.",
    ),
    key(
        "child.upstream.allow_http",
        Form::Flag,
        "false",
        "Whether `upstream.url` may be plain `http` on a host that is not this one: on a network where nobody else can listen.",
    ),
    key(
        "child.upstream.connect_timeout",
        Form::Duration,
        "\"5s\"",
        "How long a connection to it may take to come about.",
    ),
    key(
        "child.upstream.max_message",
        Form::Bytes,
        "\"16MiB\"",
        "The longest message that is taken from it; in the place of a longer answer its request gets an error.",
    ),
    key(
        "session.max_sessions",
        Form::Count,
        "256",
        "How many sessions there may be in all, sleeping ones included. A new one takes the place of the one that has slept for \
         longest; if none sleeps: 503.",
    ),
    key(
        "session.max_sessions_per_user",
        Form::Count,
        "16",
        "How many of them one user may have; then 429, in the same way.",
    ),
    key(
        "session.idle_timeout",
        Form::Duration,
        "\"15m\"",
        "How long a session may be idle before its child is stopped; the session itself is kept for `retain`.",
    ),
    key(
        "session.reap_interval",
        Form::Duration,
        "\"30s\"",
        "How often idle sessions are looked for.",
    ),
    key(
        "session.rotate_interval",
        Form::Duration,
        "\"1m\"",
        "How often tokens that are about to expire are looked for.",
    ),
    key(
        "session.refresh_lead",
        Form::Duration,
        "\"5m\"",
        "A Forgejo token that has less than this left is renewed, and the sessions that use it move to fresh children with the \
         new one; at half its life, if it lives for less than twice this.",
    ),
    key(
        "session.retain",
        Form::Duration,
        "\"24h\"",
        "How long a session outlives its last use. Without a child, because it was idle, has crashed, or the broker was restarted, \
         the session sleeps, and the next request brings it a fresh one. `\"0s\"`: a session ends with its child.",
    ),
    key(
        "session.unknown_status",
        Form::OneOf(&["404", "410"]),
        "410",
        "The status for a session id that the broker does not know. 404 makes clients start anew; 410 tells unknown from ended.",
    ),
    key(
        "oauth.access_token_ttl",
        Form::Duration,
        "\"1h\"",
        "The lifetime of the access tokens that clients get.",
    ),
    key(
        "oauth.refresh_token_ttl",
        Form::Duration,
        "\"30d\"",
        "How long a refresh token may lie unused.",
    ),
    key(
        "oauth.code_ttl",
        Form::Duration,
        "\"60s\"",
        "The lifetime of authorization codes.",
    ),
    key(
        "oauth.registration",
        Form::OneOf(&["open", "closed", "allow-list"]),
        "\"open\"",
        "Whether clients may register themselves (RFC 7591) or be described by a document at the URL that is their name \
         (client ID metadata documents). Closed: only `oauth.clients`. Allow-list: those that the next two keys name.",
    ),
    key(
        "oauth.allowed_redirect_hosts",
        Form::List,
        "[]",
        "With `allow-list`: where the answers of a client that registers itself may go. `\"claude.ai\"` is that host with \
         https, `\"*.example.org\"` the hosts below it, `\"localhost\"` the user's own machine, `\"cursor:\"` a private scheme. \
         Empty: no client may register itself.",
    ),
    key(
        "oauth.allowed_client_domains",
        Form::List,
        "[]",
        "With `allow-list`: the hosts whose documents may describe a client, as `\"claude.ai\"` or `\"*.example.org\"`. \
         Empty: no client may be described by a document.",
    ),
    key(
        "oauth.max_clients",
        Form::Count,
        "10000",
        "How many clients may be registered. At that number, clients that nobody has used make room for new ones.",
    ),
    key(
        "oauth.registrations_per_minute",
        Form::Count,
        "60",
        "How many new clients may register in a minute (then 429). A public client that is known already is not counted.",
    ),
    key(
        "oauth.sign_ins_per_minute",
        Form::Count,
        "3000",
        "How many sign-ins may begin in a minute (then a page with 503); for one client, a fifth of them, but at least 10. \
         Users who are signed in do not notice.",
    ),
    key(
        "oauth.tokens_per_minute",
        Form::Count,
        "12000",
        "How many times in a minute tokens may be issued (then 503); to one user, a fiftieth of them, but at \
         least 10 (then 429). This and the two before are counted by each broker, in memory.",
    ),
    key(
        "oauth.clients",
        Form::Tables,
        "[]",
        "Clients that need no registration: tables with `client_id`, `client_name`, `redirect_uris` and, for confidential \
         ones, `client_secret` or `client_secret_file`.",
    ),
    key(
        "store.path",
        Form::Path,
        "\"broker.db\"",
        "The SQLite database. Its directory has to be writable: beside it come `-wal` and `-shm`, and `-lock`, by which brokers on \
         one database know of each other.",
    ),
    key(
        "store.key_file",
        Form::Path,
        "\"broker.key\"",
        "The key that seals Forgejo's tokens in the database. It is made, readable by its owner only, if it does not exist \
         and the database holds no account yet. Back it up apart from the database: without it every user has to sign in \
         again. How to change it: [accounts](accounts.md).",
    ),
    key(
        "store.key",
        Form::Secret,
        "\"\"",
        "The key itself, in the place of a file, for one that comes from the environment: `NUMBER HEX`, or several with \
         commas between them, the newest last, such as `1 ` and what `openssl rand -hex 32` prints.",
    ),
    key(
        "metrics.enabled",
        Form::Flag,
        "false",
        "Whether `/metrics` is served: [what there is](metrics.md).",
    ),
    optional(
        "metrics.token",
        Form::Secret,
        "What a request for them has to bring as a bearer. Unset: everyone who reaches the broker can read them.",
    ),
    key(
        "log.format",
        Form::OneOf(&["pretty", "json"]),
        "\"pretty\"",
        "Lines for people, or one JSON object a line.",
    ),
    key(
        "log.filter",
        Form::Text,
        "\"info\"",
        "Which events are logged: `info`, or by part, such as `info,session=debug,child=warn`.",
    ),
];

/// The key of a path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

const fn key(path: &'static str, form: Form, default: &'static str, text: &'static str) -> Key {
    Key {
        path,
        form,
        default: Default::Value(default),
        text,
    }
}

const fn optional(path: &'static str, form: Form, text: &'static str) -> Key {
    Key {
        path,
        form,
        default: Default::Unset,
        text,
    }
}

const fn required(path: &'static str, form: Form, text: &'static str) -> Key {
    Key {
        path,
        form,
        default: Default::Required,
        text,
    }
}
