//! Values that are sets of bits: words that add up, and rights of files.

use super::words::add_to_mask;
use crate::config::args::{Args, FromArgs, Slot};
use crate::syntax::Fault;
use std::{marker::PhantomData, ops::RangeInclusive};

/// The words of a directive whose mentions add up.
pub trait Choices: 'static {
    const CHOICES: &'static [(&'static str, u32)];
    /// Where nothing is said.
    const DEFAULT: u32;
    /// A word that leaves nothing of the others: `off`.
    const OFF: u32 = 0;
}

/// What the mentions of a directive at one level say together; they hide those above (`ngx_conf_set_bitmask_slot`).
pub struct Mask<C>(u32, PhantomData<C>);

impl<C: Choices> Mask<C> {
    /// As if these were named.
    pub const fn of(bits: u32) -> Self {
        Self(bits, PhantomData)
    }

    /// What was named, none with [`Choices::OFF`].
    pub fn bits(self) -> u32 {
        if self.0 & C::OFF == 0 { self.0 } else { 0 }
    }

    /// Whether any of the bits was named.
    pub fn has(self, bits: u32) -> bool {
        self.bits() & bits != 0
    }

    /// Whether all of them were.
    pub fn covers(self, bits: u32) -> bool {
        self.bits() & bits == bits
    }
}

impl<C> Clone for Mask<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Mask<C> {}

impl<C> std::fmt::Debug for Mask<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({:#x})", self.0)
    }
}

impl<C: Choices> Default for Mask<C> {
    fn default() -> Self {
        Self(C::DEFAULT, PhantomData)
    }
}

impl<C: Choices> Slot for Mask<C> {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let said_before = if args.first { 0 } else { self.0 };
        self.0 = add_to_mask(said_before, args, C::CHOICES)?;
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }
}

/// Rights of files that the server makes: `user:rw group:r all:r` (`ngx_conf_set_access_slot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u32);

impl Access {
    /// The rights of the folder around such a file: who may read it may enter it (`ngx_dir_access`).
    pub fn of_folder(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }
}

impl Default for Access {
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromArgs for Access {
    const TAKES: RangeInclusive<usize> = 1..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let mut access = 0;
        let mut user = 0o600;
        for word in args.words() {
            let (who, right) = word.value.split_at(word.value.iter().position(|byte| *byte == b':').unwrap_or(0));
            let shift = match who {
                b"user" => 6,
                b"group" => 3,
                b"all" => 0,
                _ => return Err(args.invalid(word)),
            };
            if shift == 6 {
                user = 0;
            }
            access |= match right {
                b":rw" => 6 << shift,
                b":r" => 4 << shift,
                _ => return Err(args.invalid(word)),
            };
        }
        Ok(Self(access | user))
    }
}
