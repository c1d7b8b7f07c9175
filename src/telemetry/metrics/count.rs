//! Atomics that count: one number, or one number per variant of a closed list.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A number that only grows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A closed list of label values.
pub(crate) trait Label: Copy + 'static {
    const ALL: &'static [Self];
    fn text(self) -> &'static str;
    /// Position in `ALL`.
    fn index(self) -> usize;
}

/// One number per variant of a closed list.
#[derive(Debug)]
pub(crate) struct Counts<L, const N: usize> {
    numbers: [AtomicU64; N],
    label: PhantomData<L>,
}

impl<L, const N: usize> Default for Counts<L, N> {
    fn default() -> Self {
        Counts { numbers: std::array::from_fn(|_| AtomicU64::new(0)), label: PhantomData }
    }
}

impl<L: Label, const N: usize> Counts<L, N> {
    pub(crate) fn inc(&self, label: L) {
        if let Some(number) = self.numbers.get(label.index()) {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn value(&self, label: L) -> u64 {
        self.numbers.get(label.index()).map_or(0, |number| number.load(Ordering::Relaxed))
    }

    /// Every variant with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        L::ALL.iter().map(|label| (label.text(), self.value(*label)))
    }

    /// Variants that ever counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.iter().filter(|(_, number)| *number > 0)
    }
}

impl Label for crate::rejection::Code {
    const ALL: &'static [Self] = &crate::rejection::Code::ALL;
    fn text(self) -> &'static str {
        self.as_str()
    }
    fn index(self) -> usize {
        self as usize
    }
}

/// The class of a status: its first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// No answer was begun: the client left, or the connection was cut.
    None,
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

impl Class {
    pub(crate) const COUNT: usize = 6;

    /// The class of a status, 0 meaning that there was none.
    pub(crate) fn of(status: u16) -> Class {
        match status {
            100..=199 => Class::Informational,
            200..=299 => Class::Success,
            300..=399 => Class::Redirection,
            400..=499 => Class::ClientError,
            500..=u16::MAX => Class::ServerError,
            0..=99 => Class::None,
        }
    }
}

impl Label for Class {
    const ALL: &'static [Self] = &[
        Class::None,
        Class::Informational,
        Class::Success,
        Class::Redirection,
        Class::ClientError,
        Class::ServerError,
    ];
    fn text(self) -> &'static str {
        match self {
            Class::None => "none",
            Class::Informational => "1xx",
            Class::Success => "2xx",
            Class::Redirection => "3xx",
            Class::ClientError => "4xx",
            Class::ServerError => "5xx",
        }
    }
    fn index(self) -> usize {
        self as usize
    }
}

/// Declares an enum whose variants are label values.
macro_rules! labels {
    ($(#[$outer:meta])* pub enum $name:ident { $($(#[$inner:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            pub(crate) const COUNT: usize = [$($name::$variant),+].len();

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl $crate::telemetry::metrics::count::Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant),+];
            fn text(self) -> &'static str {
                self.as_str()
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;
