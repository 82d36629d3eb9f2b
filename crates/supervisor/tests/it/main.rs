//! The supervisor with real processes. Everything else is tested beside the code.

mod lifecycle;
#[cfg(test)]
mod process;
mod spawn;
mod stderr;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
