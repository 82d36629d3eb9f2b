//! The MCP server for the conformance suite as a program. See [`testkit::conformance`].

fn main() -> std::process::ExitCode {
    testkit::conformance::main()
}
