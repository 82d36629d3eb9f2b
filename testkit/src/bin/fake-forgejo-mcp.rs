//! The double of `forgejo-mcp` as a program. See [`testkit::forgejo_mcp`].

fn main() -> std::process::ExitCode {
    testkit::forgejo_mcp::main()
}
