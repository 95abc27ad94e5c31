//! The program. Everything that it does is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    tidegate::app::run()
}
