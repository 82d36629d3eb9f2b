//! Tests of the supervisor with real processes. Unit tests cover the rest.

#[cfg(test)]
mod delivery;
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
mod spawn;
mod stderr;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod support;
