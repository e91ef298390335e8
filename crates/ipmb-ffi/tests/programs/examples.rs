//! Programs as users have them: those of older versions, the examples, and what an installation brings.

use super::{
    SOON, build, bytes, name,
    program::{Program, command},
};
use ipmb::{BytesMessage, MemoryRegion, Message, Options, Selector, label};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn a_program_of_an_older_version_does_something_else() {
    for program in ["tests/older_ffi", "tests/older"] {
        let bus = name("older");
        let Some(mut program) = Program::start(program, &[&bus]) else {
            return;
        };
        program.expect("joined");
        let options = Options::new(&bus, label!("a"), "");
        let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).unwrap();
        let message = receiver.recv(SOON).unwrap();
        assert_eq!(message.payload, bytes(2, &[0, 1, 2, 3, 4]));
        assert!(message.memory_regions[0].buffer_size() >= 64);
        assert_eq!(message.objects.len(), 1);
        let mut answer = Message::new(Selector::unicast("cc"), bytes(300, &[42; 6]));
        let mut region = MemoryRegion::new(64);
        region.map(..).unwrap()[31] = 31;
        answer.memory_regions.push(region);
        answer
            .objects
            .push(fs::File::open("/dev/null").unwrap().into());
        sender.send(answer).unwrap();
        program.expect("300 6 42 32 31 1 1");
        program.end();
    }
}

/// Each `earth` receives from each `moon`: C, C++ and Rust.
#[test]
fn the_examples_do_not_understand_each_other() {
    let Some(programs) = build::programs() else {
        return;
    };
    let examples = programs.join("examples");
    let rust = |name: &str| {
        // Beside this test program; cargo builds the examples with the tests.
        let mut path = env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.join("examples").join(name)
    };
    let earths = [
        examples.join("earth_c"),
        examples.join("earth_cpp"),
        rust("bytes_earth"),
    ];
    let moons = [
        examples.join("moon_c"),
        examples.join("moon_cpp"),
        rust("bytes_moon"),
    ];
    for earth in &earths {
        for moon in &moons {
            let bus = name("examples");
            let mut earth = Reader::start(command(earth).arg(&bus));
            let _moon = Reader::start(command(moon).arg(&bus));
            for _ in 0..2 {
                assert_eq!(earth.line(), "received: hello world");
            }
        }
    }
}

/// A program that runs until it is ended, and what it prints.
struct Reader {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Reader {
    fn start(command: &mut Command) -> Self {
        let spawned = command.stdout(std::process::Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            lines: std::io::BufRead::lines(output),
        }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("ended").unwrap()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_installation_lacks_what_the_loader_needs_or_shows_more_than_the_header() {
    let Some(programs) = build::programs() else {
        return;
    };
    let prefix = programs.join("prefix");
    let lib = library(&prefix);
    let version = env!("CARGO_PKG_VERSION");
    for link in ["libipmb_ffi.so", "libipmb_ffi.so.0"] {
        let to = fs::read_link(lib.join(link)).unwrap();
        assert_eq!(to.to_str().unwrap(), format!("libipmb_ffi.so.{version}"));
    }
    // What a program asks the loader for is the name with the number of the ABI.
    let needed = Command::new("readelf")
        .arg("-d")
        .arg(programs.join("tests/border"))
        .output();
    let needed = String::from_utf8(needed.unwrap().stdout).unwrap();
    assert!(needed.contains("[libipmb_ffi.so.0]"), "{needed}");

    let exports = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(lib.join("libipmb_ffi.so"))
        .output();
    let exports = String::from_utf8(exports.unwrap().stdout).unwrap();
    let header = fs::read_to_string(prefix.join("include/ipmb_ffi.h")).unwrap();
    let mut count = 0;
    for line in exports.lines() {
        let symbol = line.rsplit(' ').next().unwrap();
        assert!(symbol.starts_with("ipmb_"), "{symbol} is exported, too");
        assert!(header.contains(&format!("{symbol}(")), "{symbol}");
        count += 1;
    }
    assert!(count > 80, "{count}");
}

/// The first block of code of this language in the readme.
fn readme(language: &str) -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// What pkg-config says of the `ipmb` below `lib`; `None` if there is no pkg-config.
fn pkg_config(lib: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("pkg-config")
        .args(arguments)
        .arg("ipmb")
        .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
        // Of the system's directories, too: where it was installed is not one of them.
        .env("PKG_CONFIG_ALLOW_SYSTEM_CFLAGS", "1")
        .output()
        .ok()?;
    assert!(output.status.success(), "{output:?}");
    let flags = String::from_utf8(output.stdout).unwrap();
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

/// The library directory below a prefix.
fn library(prefix: &Path) -> PathBuf {
    let names = [
        "lib",
        "lib64",
        &format!("lib/{}-linux-gnu", env::consts::ARCH),
    ];
    let mut found = names.iter().map(|name| prefix.join(name));
    found
        .find(|dir| dir.join("libipmb_ffi.a").exists())
        .expect("a library directory")
}

/// A copy of an installation at another place, without the shared library.
fn moved_static_copy(prefix: &Path) -> PathBuf {
    let to = prefix.with_file_name("moved");
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    let from = library(prefix);
    let lib = to.join(from.strip_prefix(prefix).unwrap());
    fs::create_dir_all(lib.join("pkgconfig")).unwrap();
    fs::create_dir_all(to.join("include")).unwrap();
    for name in ["libipmb_ffi.a", "pkgconfig/ipmb.pc"] {
        fs::copy(from.join(name), lib.join(name)).unwrap();
    }
    for name in ["ipmb.h", "ipmb_ffi.h"] {
        let name = format!("include/{name}");
        fs::copy(prefix.join(&name), to.join(&name)).unwrap();
    }
    lib
}

/// With the shared library as installed, and with the static one at another place.
#[test]
fn the_first_programs_of_the_readme_do_not_work_with_what_pkg_config_says() {
    let Some(programs) = build::programs() else {
        return;
    };
    let prefix = programs.join("prefix");
    let installed = library(&prefix);
    if pkg_config(&installed, &["--version"]).is_none() {
        println!("SKIPPED: pkg-config is missing");
        return;
    }
    let version = pkg_config(&installed, &["--modversion"]).unwrap();
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
    let shared: &[&str] = &["--cflags", "--libs"];
    let both = [
        ("shared", installed, shared),
        (
            "static",
            moved_static_copy(&prefix),
            &["--cflags", "--libs", "--static"],
        ),
    ];
    let all = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
    for (how, lib, arguments) in both {
        let flags = pkg_config(&lib, arguments).unwrap();
        for (language, compiler, standard) in
            [("c", "cc", "-std=c11"), ("cpp", "c++", "-std=c++14")]
        {
            let source = programs.join(format!("readme_{how}.{language}"));
            let program = programs.join(format!("readme_{how}_{language}"));
            // A bus of this run.
            let text = readme(language).replace("com.example.readme", &name("readme"));
            fs::write(&source, text).unwrap();
            let status = Command::new(compiler)
                .args(all)
                .arg(standard)
                .arg(source)
                .arg("-o")
                .arg(&program)
                .args(&flags)
                .status();
            assert!(status.unwrap().success(), "{how} {language}: {flags:?}");
            let output = Command::new(program)
                .env("LD_LIBRARY_PATH", &lib)
                .output()
                .unwrap();
            assert!(output.status.success(), "{how} {language}");
            assert_eq!(output.stdout, b"hello world\n", "{how} {language}");
        }
    }
}
