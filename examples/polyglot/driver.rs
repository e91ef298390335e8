//! Starts four stations, one for each language, sends a letter around them, and checks that all of it happened:
//! `polyglot DIRECTORY`, where the directory has the C and C++ stations. `run` builds everything and calls this.

use ipmb::{
    BytesMessage, EndpointReceiver, MemoryRegion, Message, Options, RecvError, Selector, label,
};
use std::{
    error::Error,
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Time for everything, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the memory has room for.
const MEMORY: usize = 4096;

/// A process that adds its line and passes the letter on.
struct Station {
    language: &'static str,
    child: Child,
}

impl Drop for Station {
    fn drop(&mut self) {
        // Only one that has not ended by itself is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("polyglot: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let programs = std::env::args().nth(1).map(PathBuf::from);
    let programs = programs.ok_or("usage: polyglot DIRECTORY, with station_c and station_cpp")?;
    let bus = format!("com.example.polyglot.{}", std::process::id());

    println!("A letter goes around: Rust, C, C++, Node, and back here. A file and a piece of");
    println!(
        "shared memory go with it. Each is a process of its own and adds a line to all three.\n"
    );

    let options = Options::new(&bus, label!("home"), "");
    let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(options, Some(PATIENCE))?;
    let mut stations = start(&bus, &programs)?;

    // The driver keeps a handle of its own of each, to look at them when all is over.
    let file = nameless_file()?;
    let memory = MemoryRegion::try_new(MEMORY)?;

    let payload = BytesMessage {
        format: 0,
        data: Vec::new(),
    };
    let mut first = Selector::unicast("rust");
    first.ttl = PATIENCE; // Kept until the station has joined.
    let mut letter = Message::new(first, payload);
    letter.objects.push(OwnedFd::from(file.try_clone()?).into());
    letter.memory_regions.push(memory.clone()?);
    sender.send(letter)?;

    let letter = wait_for(&receiver, &mut stations)?;
    let text = String::from_utf8(letter.payload.data)?;
    println!("\nThe letter is back. It says:\n{}", indented(&text));

    let expected: String = stations
        .iter()
        .map(|station| line(station.language, station.child.id()))
        .collect();
    same("the letter", &text, &expected)?;
    if letter.objects.len() != 1 || letter.memory_regions.len() != 1 {
        return Err("the file or the memory did not come back with the letter".into());
    }
    drop((letter.objects, letter.memory_regions));

    let mut written = vec![0; expected.len() + 1];
    let count = file.read_at(&mut written, 0)?;
    same("the file", &lossy(written.get(..count)), &expected)?;
    println!("The file says the same.");

    same("the memory", &text_in(memory)?, &expected)?;
    println!("The memory says the same, and was never copied.");

    for station in &mut stations {
        let status = station.child.wait()?;
        if !status.success() {
            return Err(format!("{} ended badly: {status}", station.language).into());
        }
    }
    println!("All four have ended well.");
    Ok(())
}

/// What a station adds.
fn line(language: &str, process: u32) -> String {
    format!("{language} was here, process {process}\n")
}

/// Starts the stations. Each is told the bus and the label of the next.
fn start(bus: &str, programs: &Path) -> Result<Vec<Station>> {
    let mut rust = std::env::current_exe()?;
    rust.set_file_name("polyglot_station");
    let mut node = Command::new("node");
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("station.mjs"));
    let stations = [
        ("Rust", Command::new(rust), "c"),
        ("C", Command::new(programs.join("station_c")), "cpp"),
        ("C++", Command::new(programs.join("station_cpp")), "node"),
        ("Node", node, "home"),
    ];
    let mut started = Vec::new();
    for (language, mut command, next) in stations {
        let child = command
            .args([bus, next])
            .spawn()
            .map_err(|error| format!("{language} cannot be started: {command:?}: {error}"))?;
        started.push(Station { language, child });
    }
    Ok(started)
}

/// The letter, unless a station fails before.
fn wait_for(
    receiver: &EndpointReceiver<BytesMessage>,
    stations: &mut [Station],
) -> Result<Message<BytesMessage>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match receiver.recv(Some(Duration::from_millis(200))) {
            Ok(letter) => return Ok(letter),
            Err(RecvError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
        for station in &mut *stations {
            let status = station.child.try_wait()?.filter(|status| !status.success());
            if let Some(status) = status {
                return Err(format!("{} ended badly: {status}", station.language).into());
            }
        }
        if Instant::now() > until {
            return Err(format!("the letter did not come back within {PATIENCE:?}").into());
        }
    }
}

/// An open file without a name.
fn nameless_file() -> Result<File> {
    let path = std::env::temp_dir().join(format!("ipmb-polyglot-{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// The text in the memory, which ends with a NUL.
fn text_in(mut memory: MemoryRegion) -> Result<String> {
    let bytes = memory.map(..)?;
    let end = bytes.iter().position(|byte| *byte == 0);
    Ok(lossy(bytes.get(..end.unwrap_or(MEMORY))))
}

fn lossy(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

fn same(what: &str, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (indented(found), indented(expected));
    Err(format!("{what} does not say what was announced, but\n{found}and not\n{expected}").into())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
