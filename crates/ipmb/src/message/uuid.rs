//! [`TypeUuid`]: which type a payload has, named by a number that does not change between builds and languages.

/// Names a type by a UUID, so that a receiver knows what a payload is.
///
/// Derive it, with a UUID made once for the type (`uuidgen`) and never changed while the type's fields stay
/// compatible:
///
/// ```
/// use ipmb::TypeUuid;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, TypeUuid)]
/// #[uuid = "7b07473e-9659-4d47-a502-8245d71c0078"]
/// struct Position { x: f64, y: f64 }
///
/// assert_eq!(Position::UUID[..2], [0x7b, 0x07]);
/// ```
///
/// With the default feature `type-uuid`, every type that implements the trait of the same name from the crate
/// [`type-uuid`](https://docs.rs/type-uuid/0.1.2) 0.1 has this one too, and so have the types of the standard
/// library that it names: `String`, integers, floats, `bool`, `char`, `()`, `Duration`, addresses, paths. Without
/// the feature those have the same UUIDs by implementations of our own. A type must not implement both traits by
/// hand: that compiles only as long as nobody in the build turns the feature on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no type UUID",
    note = "add `#[derive(ipmb::TypeUuid)]` and `#[uuid = \"…\"]` to a type of yours; wrap a foreign type in one",
    note = "`#[derive(type_uuid::TypeUuid)]` of type-uuid 0.1 counts with ipmb's feature `type-uuid` only"
)]
pub trait TypeUuid {
    /// The UUID's bytes, in the order in which it is written.
    const UUID: [u8; 16];
}

#[cfg(feature = "type-uuid")]
impl<T: type_uuid::TypeUuid + ?Sized> TypeUuid for T {
    const UUID: [u8; 16] = <T as type_uuid::TypeUuid>::UUID;
}

/// Calls `$with!` with the types of the standard library that have a UUID. With the feature `type-uuid` no others
/// can get one: that crate might name them too one day.
#[cfg(any(test, not(feature = "type-uuid")))]
macro_rules! std_types {
    ($with:ident) => {
        $with! {
            bool = 0xabea8c1e_6910_43e4_b579_9ef1b5a95226,
            isize = 0x0d3b0c08_45ff_43f4_a145_b2bdef69d1d2,
            i8 = 0x92fd5f7b_2102_46cb_9b1b_662df636625a,
            i16 = 0xa02dfda1_8603_4d69_818a_1e1c47b154b6,
            i32 = 0x6dd1ba7e_fa8b_4aa1_ac22_c28773798975,
            i64 = 0x3103622f_fdfa_4ae3_8ede_67b56bd332fd,
            i128 = 0x0dbb7b33_9f27_4b3f_aebc_11426c464323,
            usize = 0x1d4562ce_b27d_4e99_af44_a40aca248c2e,
            u8 = 0xb0fe47a9_fd37_41c6_b2ab_bed5d385ccde,
            u16 = 0x3ad2a84b_c5a6_414c_8628_75613e11e67e,
            u32 = 0xf6cc80b8_94e8_4c05_80b1_a8fbbaeb67af,
            u64 = 0xda9a3e45_516c_4412_87d2_96ea17bebd21,
            u128 = 0x46eaab86_9268_4e98_ac9f_76eb71a1f0b4,
            f32 = 0x5b1d1734_9fcc_43e7_8cc6_452ba16ff1fd,
            f64 = 0x76b2ebf4_cd06_41de_96dc_2f402ffa46b2,
            char = 0x9786a9f4_1195_4dd1_875d_3e469454d9c4,
            () = 0x03748d1a_0d0c_472f_9fdd_424856157064,
            str = 0x2d07a3d2_d793_44f2_bb28_08c445b164c9,
            String = 0x7edbc10a_2147_499c_af9a_498723c7b35f,
            std::ffi::CStr = 0xf8ca0716_c80a_4aca_a2f1_bdef739d5688,
            std::ffi::CString = 0xd26a39da_d0e2_46b1_aeab_481fe57d0f23,
            std::ffi::OsStr = 0xfb7f1478_03fc_4884_b710_977c8bf9fa8b,
            std::ffi::OsString = 0x38485fce_f5d0_48df_b5cb_98e510c26a8d,
            std::num::NonZeroU8 = 0x284b98ec_ecb5_463c_9744_23b8669c5553,
            std::num::NonZeroU16 = 0x38f030e4_6046_45c9_96b4_1830b1aa3f35,
            std::num::NonZeroU32 = 0xb32f7cc7_2841_48b3_8d8e_760414b4c4ab,
            std::num::NonZeroU64 = 0xb43c6dad_6608_4f02_817a_8eac8c6345cb,
            std::time::Duration = 0x449a4224_4665_47ce_88a2_8d0310d20572,
            std::time::SystemTime = 0xb8dfc518_faf7_4590_91ba_82acd78b1685,
            std::net::IpAddr = 0xa3c248b7_94e1_4d4a_8b7e_fd1915f4c81b,
            std::net::Ipv4Addr = 0xa62542a2_6a38_4980_9467_f093bb546140,
            std::net::Ipv6Addr = 0xa6ba4f16_f436_4ae2_ae62_69dd08150b33,
            std::net::SocketAddr = 0xfe76891f_3e0a_49f7_b32e_14fc11768844,
            std::net::SocketAddrV4 = 0xe951fa30_50d9_4832_8bc9_c49c06037697,
            std::net::SocketAddrV6 = 0x8840455b_ad6c_41ae_8694_e50873d952c4,
            std::path::Path = 0x72b02282_6efe_4392_9d9c_467b23ca8c83,
            std::path::PathBuf = 0xd6db3123_4c95_45de_a28f_5a48d574b9c4,
        }
    };
}

#[cfg(not(feature = "type-uuid"))]
macro_rules! implement {
    ($($ty:ty = $uuid:literal,)*) => {
        $(impl TypeUuid for $ty {
            const UUID: [u8; 16] = u128::to_be_bytes($uuid);
        })*
    };
}

#[cfg(not(feature = "type-uuid"))]
std_types!(implement);

#[cfg(test)]
mod tests {
    use super::TypeUuid;

    #[test]
    fn std_types_have_the_uuids_of_type_uuid_with_and_without_the_feature() {
        macro_rules! compare {
            ($($ty:ty = $uuid:literal,)*) => {$(
                let ours = u128::to_be_bytes($uuid);
                assert_eq!(ours, <$ty as type_uuid::TypeUuid>::UUID, stringify!($ty));
                assert_eq!(ours, <$ty as TypeUuid>::UUID, stringify!($ty));
            )*};
        }
        std_types!(compare);
    }
}
