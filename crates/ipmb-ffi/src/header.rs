//! Keeps `include/ipmb_ffi.h` equal to the source. cbindgen makes it of the types and functions; the constants, which C
//! and C++ write differently, are written here from the same tables that the code uses.
//!
//! After a change: `UPDATE_HEADER=1 cargo test -p ipmb-ffi header`.

#![allow(clippy::unwrap_used)]

use crate::{
    code::ALL,
    selector::{MULTICAST, TIMEOUT_INFINITE, UNICAST},
};
use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use std::{fmt::Write, fs, path::Path};

/// In the order in which the header shows them.
const SOURCES: [&str; 11] = [
    "code", "border", "version", "label", "selector", "object", "region", "registry", "message",
    "settings", "endpoint",
];

const INTRODUCTION: &str = "\
// The C interface of the message bus ipmb, for C (C11) and C++ (C++14, in the namespace ipmb_ffi).
//
// Made of the library's source by cbindgen; do not edit.
//
// What holds for all functions:
//
// * A handle (Sender, Receiver, Message, ...) is a `void *`. Most functions take a pointer to it; those that take the
//   handle itself take it over: it must not be used any more. A pointer may be NULL and a handle may be of another kind:
//   that is ERROR_CODE_INVALID_ARGUMENT. A handle that was dropped must not be used.
// * Where nothing is said of ownership, what a function is given stays the caller's.
// * A function that returns an ErrorCode returns 0 or a negative code. One that returns a value returns 0 or NULL if it
//   fails; one that returns nothing does nothing. In all three cases ipmb_last_error_code and ipmb_last_error then say
//   why, on the same thread. The functions that end in `_try` do the same as those without, with a code.
// * Texts are UTF-8 and end with a NUL. Times are in milliseconds.
// * \"Thread-safe\" means that all threads may call the function at the same time, with the same handles.
// * No function raises a signal, throws, or ends the program. None may be called in a signal handler.
// * In a child that was forked without exec, endpoints and regions of the parent are of no use (ERROR_CODE_FORKED); drop
//   them, or leave them alone.
";

fn constants() -> String {
    let mut text = String::new();
    text.push_str(
        "\n#ifdef __cplusplus\n\n// Programs that were written for older versions rely on them.\n",
    );
    for include in ["cstdarg", "cstdint", "cstdlib", "new", "ostream"] {
        writeln!(text, "#include <{include}>").unwrap();
    }
    text.push_str("\nnamespace ipmb_ffi {\n\n");
    text.push_str(
        "/// What most functions return: 0 or a negative code.\nusing ErrorCode = int32_t;\n\n",
    );
    text.push_str("/// How many of the matching endpoints get a message.\nenum class SelectorMode : int32_t {\n");
    writeln!(
        text,
        "  /// One of them: the one that joined first.\n  kUnicast = {UNICAST},"
    )
    .unwrap();
    writeln!(
        text,
        "  /// All of them.\n  kMulticast = {MULTICAST},\n}};\n"
    )
    .unwrap();
    assert_eq!(TIMEOUT_INFINITE, !0);
    text.push_str("/// A timeout that means: wait for ever.\nconstexpr static const uint32_t TIMEOUT_INFINITE = ~0u;\n\n");
    for (name, value, what) in ALL {
        writeln!(
            text,
            "/// {what}\nconstexpr static const ErrorCode {name} = {value};"
        )
        .unwrap();
    }
    text.push_str("\n}  // namespace ipmb_ffi\n\n#else\n\n");
    text.push_str(
        "/// What most functions return: 0 or a negative code.\ntypedef int32_t ErrorCode;\n\n",
    );
    text.push_str(
        "/// How many of the matching endpoints get a message.\ntypedef int32_t SelectorMode;\n",
    );
    text.push_str("enum {\n  /// One of them: the one that joined first.\n");
    writeln!(
        text,
        "  kUnicast = {UNICAST},\n  /// All of them.\n  kMulticast = {MULTICAST}\n}};\n"
    )
    .unwrap();
    text.push_str("/// A timeout that means: wait for ever.\n#define TIMEOUT_INFINITE (~0u)\n\n");
    for (name, value, what) in ALL {
        writeln!(text, "/// {what}\n#define {name} ({value})").unwrap();
    }
    text.push_str("\n#endif");
    text
}

fn generate(crate_dir: &Path) -> String {
    let mut config = Config {
        header: Some(INTRODUCTION.to_owned()),
        after_includes: Some(constants()),
        pragma_once: true,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"]
            .map(str::to_owned)
            .into(),
        namespace: Some("ipmb_ffi".to_owned()),
        cpp_compat: true,
        language: Language::C,
        style: Style::Both,
        documentation_style: DocumentationStyle::Cxx,
        line_length: 110,
        ..Config::default()
    };
    // Written by `constants`.
    config.export.exclude = [
        "ErrorCode",
        "SelectorMode",
        "TIMEOUT_INFINITE",
        "UNICAST",
        "MULTICAST",
    ]
    .map(str::to_owned)
    .into();
    let mut builder = Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(crate_dir.join(format!("src/{source}.rs")));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_that_of_the_source() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_dir.join("include/ipmb_ffi.h");
    let header = generate(crate_dir);
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        header == committed,
        "include/ipmb_ffi.h is not that of the source; run `UPDATE_HEADER=1 cargo test -p ipmb-ffi header` and look at \
         what changed"
    );
}

#[test]
fn a_function_says_nothing_of_threads_blocking_or_errors() {
    let header = generate(Path::new(env!("CARGO_MANIFEST_DIR")));
    let (_, functions) = header.split_once("extern \"C\" {").unwrap();
    let (mut said, mut count) = (String::new(), 0);
    for line in functions.lines() {
        if let Some(text) = line.strip_prefix("///") {
            said.push_str(text);
            continue;
        }
        if line.contains("ipmb_") && line.contains('(') {
            for words in [
                &["hread"][..],
                &["block", "Block", "May wait"],
                &[
                    "Errors:",
                    "(ipmb_last_error_code)",
                    "cannot fail",
                    "errors: as",
                ],
            ] {
                let any = words.iter().any(|word| said.contains(word));
                assert!(any, "{line} says none of {words:?}, but: {said}");
            }
            count += 1;
        }
        said.clear();
    }
    assert!(count > 80, "{count} functions were found");
}
