//! The double of `forgejo-mcp` as a program. See [`testkit::child`].

fn main() -> std::process::ExitCode {
    testkit::child::main()
}
