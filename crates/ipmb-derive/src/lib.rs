//! Derive macros of the crate `ipmb`. Use them through it; they are documented at the traits of the same names.

mod message_box;
mod path;
mod type_uuid;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum with one type in each variant a payload: `ipmb::MessageBox`.
///
/// The path of the crate `ipmb` is found by itself, renamed or not. Where only a re-export can be named:
/// `#[message_box(crate = "other::ipmb")]`.
#[proc_macro_derive(MessageBox, attributes(message_box))]
pub fn derive_message_box(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message_box::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Gives a type its UUID, `#[uuid = "…"]`: `ipmb::TypeUuid`.
///
/// `#[message_box(crate = "other::ipmb")]` works as with `MessageBox`.
#[proc_macro_derive(TypeUuid, attributes(uuid, message_box))]
pub fn derive_type_uuid(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    type_uuid::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
