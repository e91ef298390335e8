//! Payloads that are written in full when made and read in full when checked.

#[cfg(feature = "iceoryx2")]
use iceoryx2::prelude::ZeroCopySend;
use serde::{Deserialize, Serialize};
use type_uuid::TypeUuid;

/// The 16 bytes: a derived struct.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, TypeUuid)]
#[cfg_attr(feature = "iceoryx2", derive(ZeroCopySend))]
#[uuid = "5c5cf1c1-7d41-4a1c-8a8f-2d9c7d0b7c11"]
#[repr(C)]
pub struct Pair {
    pub a: u64,
    pub b: u64,
}

impl Pair {
    /// From sixteen bytes, as the bare ring has them.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let both = u128::from_le_bytes(bytes.try_into().expect("sixteen bytes"));
        Self {
            a: both as u64,
            b: (both >> 64) as u64,
        }
    }
}

pub trait Load: Sized {
    fn make(number: u64, size: usize) -> Self;
    /// The number it was made with; panics if anything else is wrong.
    fn check(&self, size: usize) -> u64;
}

/// Numbers below the highest that are varints of nine bytes: neither encoding is flattered by short ones.
const HIGH: u64 = 1 << 62;

impl Load for Pair {
    #[inline]
    fn make(number: u64, _: usize) -> Self {
        Self {
            a: number,
            b: !number & (HIGH - 1) | HIGH,
        }
    }

    #[inline]
    fn check(&self, _: usize) -> u64 {
        assert_eq!(self.b, !self.a & (HIGH - 1) | HIGH);
        self.a
    }
}

#[inline]
pub fn data(number: u64, size: usize) -> Vec<u8> {
    let mut data = vec![number as u8; size];
    data[..8].copy_from_slice(&number.to_le_bytes());
    data
}

/// Reads every byte.
#[inline]
pub fn number_of(data: &[u8], size: usize) -> u64 {
    assert_eq!(data.len(), size);
    let (head, rest) = data.split_at(8);
    let number = u64::from_le_bytes(head.try_into().expect("eight bytes"));
    check_rest(rest, number);
    number
}

/// What follows the first bytes.
#[inline]
pub fn check_rest(rest: &[u8], number: u64) {
    let wrong = rest.iter().fold(0, |all, b| all | (b ^ number as u8));
    assert_eq!(wrong, 0);
}

macro_rules! bytes_load {
    ($bytes:path) => {
        impl Load for $bytes {
            #[inline]
            fn make(number: u64, size: usize) -> Self {
                Self {
                    format: 1,
                    data: data(number, size),
                }
            }

            #[inline]
            fn check(&self, size: usize) -> u64 {
                number_of(&self.data, size)
            }
        }
    };
}
bytes_load!(ipmb::BytesMessage);
#[cfg(feature = "ipmb-old")]
bytes_load!(ipmb_old::BytesMessage);

impl Load for Vec<u8> {
    #[inline]
    fn make(number: u64, size: usize) -> Self {
        data(number, size)
    }

    #[inline]
    fn check(&self, size: usize) -> u64 {
        number_of(self, size)
    }
}
