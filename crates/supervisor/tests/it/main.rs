//! The supervisor with real processes. Everything else is tested beside the code.

#[cfg(test)]
mod delivery;
#[cfg(test)]
mod isolation;
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod misbehaviour;
mod orphans;
#[cfg(test)]
mod process;
#[cfg(test)]
mod ready;
mod spawn;
#[cfg(test)]
mod spy;
mod stderr;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
