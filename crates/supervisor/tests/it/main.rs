//! The supervisor with real processes. Everything else is tested beside the code.

mod exit;
#[cfg(test)]
mod faulty_children;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod isolation_attacks;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod limits;
mod orphans;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod secret_delivery;
mod spawn;
mod stderr;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
