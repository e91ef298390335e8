//! Programs as users have them: those of older versions, the examples, and what an installation brings.

use super::{
    SOON, build, bytes, name,
    program::{Program, command},
};
use ipmb::{BytesMessage, MemoryRegion, Message, Options, Selector, label};
use std::process::Command;

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
        let mut answer = Message::new(Selector::unicast("cc"), bytes(300, &[42; 6]));
        let mut region = MemoryRegion::new(64);
        region.map(..).unwrap()[31] = 31;
        answer.memory_regions.push(region);
        sender.send(answer).unwrap();
        program.expect("300 6 42 32 31 1");
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
        let mut path = std::env::current_exe().unwrap();
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
fn an_installation_lacks_what_pkg_config_or_the_loader_need() {
    let Some(programs) = build::programs() else {
        return;
    };
    let prefix = programs.join("prefix");
    let lib = ["lib", "lib64"].map(|dir| prefix.join(dir));
    let lib = lib.iter().find(|dir| dir.join("libipmb_ffi.a").exists());
    let lib = lib.expect("a library directory");
    let version = env!("CARGO_PKG_VERSION");
    for link in ["libipmb_ffi.so", "libipmb_ffi.so.0"] {
        let to = std::fs::read_link(lib.join(link)).unwrap();
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
    let header = std::fs::read_to_string(prefix.join("include/ipmb_ffi.h")).unwrap();
    let mut count = 0;
    for line in exports.lines() {
        let symbol = line.rsplit(' ').next().unwrap();
        assert!(symbol.starts_with("ipmb_"), "{symbol} is exported, too");
        assert!(header.contains(&format!("{symbol}(")), "{symbol}");
        count += 1;
    }
    assert!(count > 80, "{count}");

    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "ipmb"])
        .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
        .output();
    match flags {
        Err(_) => println!("SKIPPED: pkg-config is missing"),
        Ok(output) => {
            let flags = String::from_utf8(output.stdout).unwrap();
            assert!(
                output.status.success() && flags.contains("-lipmb_ffi"),
                "{flags}"
            );
        }
    }
}

/// The first block of code of this language in the readme.
fn readme(language: &str) -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_first_programs_of_the_readme_do_not_work() {
    let Some(programs) = build::programs() else {
        return;
    };
    let prefix = programs.join("prefix");
    let all = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
    for (language, compiler, standard) in [("c", "cc", "-std=c11"), ("cpp", "c++", "-std=c++14")] {
        let source = programs.join(format!("readme.{language}"));
        let program = programs.join(format!("readme_{language}"));
        // A bus of this run.
        let text = readme(language).replace("com.example.readme", &name("readme"));
        std::fs::write(&source, text).unwrap();
        let lib = prefix.join("lib");
        let status = Command::new(compiler)
            .args(all)
            .arg(standard)
            .arg(source)
            .arg("-o")
            .arg(&program)
            .arg(format!("-I{}", prefix.join("include").display()))
            .arg(format!("-L{}", lib.display()))
            .args(["-lipmb_ffi", &format!("-Wl,-rpath,{}", lib.display())])
            .status();
        assert!(status.unwrap().success(), "{language}");
        let output = Command::new(program).output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"hello world\n", "{language}");
    }
}
