//! A container without Docker: a file tree over the machine's own, and a network with nothing in it but what a test puts
//! there. The tutorials' files need no change in it: port 80 is free, `/etc/nginx` is the tutorial's, names resolve by
//! `/etc/hosts`.
//!
//! The tree is an overlay whose upper layer is in memory, entered with `nsenter`; the network namespace is entered by the
//! test's own thread, so that its clients, and backends in its threads, are inside too. All of it is gone when the last
//! process in it ends. Root is needed.

use super::program::{self, Program, Ran, run, show};
use super::scratch::Scratch;
use super::{binary, component, measure, project, replaced, wait};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whose build of nginx the tutorial's reader has installed: where it looks for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// nginx.org's packages and Docker image.
    Docker,
    /// Debian 12.
    Debian,
    /// Homebrew on an Intel Mac.
    Homebrew,
}

/// A file tree and a network, with the program under test as `/usr/sbin/nginx`. Lives in the thread that made it.
pub(crate) struct Container {
    build: Build,
    /// Keeps the namespaces until its standard input is closed.
    holder: Child,
    /// The network the thread came from.
    home: File,
    /// Where the memory for the upper layer is mounted, in the container's own view.
    _place: Scratch,
    _stays_in_this_thread: PhantomData<*const ()>,
}

impl Container {
    /// A new one, with the stock files of that build and nothing running. None, said aloud, when this machine cannot.
    ///
    /// # Panics
    /// Where `CI` is set and there cannot be one.
    pub(crate) fn new(build: Build) -> Option<Self> {
        if !component::need(&["unshare", "nsenter", "pivot_root", "ip"]) {
            return None;
        }
        let place = Scratch::new();
        let home = File::open("/proc/thread-self/ns/net").expect("/proc/thread-self/ns/net");
        match hold(&place) {
            Ok(holder) => {
                let mut container = Self { build, holder, home, _place: place, _stays_in_this_thread: PhantomData };
                container.enter();
                container.furnish();
                Some(container)
            }
            Err(said) => {
                component::missing(&format!("mount and network namespaces, as root ({})", said.trim()));
                None
            }
        }
    }

    /// Writes a file, with the folders that lead there.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        self.make_dir(parent(path));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let written = self.open(path, flags).and_then(|mut file| file.write_all(contents.as_ref()));
        written.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Puts a file of the project there.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let from = project(from);
        self.write(to, fs::read(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
    }

    /// Puts all files of a folder of the project there, those in folders below it as well.
    pub(crate) fn copy_all(&self, from: &str, to: &str) {
        self.make_dir(to);
        for entry in fs::read_dir(project(from)).unwrap_or_else(|error| panic!("{from}: {error}")) {
            let name = entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if project(&from).is_dir() { self.copy_all(&from, &to) } else { self.copy(&from, &to) }
        }
    }

    /// What a file says; nothing when it does not exist.
    pub(crate) fn read(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        let _ = self.open(path, OFlags::RDONLY).and_then(|mut file| file.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether there is such a file or folder.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH).is_ok()
    }

    /// Makes a folder, with those that lead there.
    pub(crate) fn make_dir(&self, path: &str) {
        if !self.exists(path) {
            self.run(&["mkdir", "-p", path]).silently();
        }
    }

    /// `ln -s TARGET PATH`.
    pub(crate) fn link(&self, target: &str, path: &str) {
        self.make_dir(parent(path));
        self.run(&["ln", "-s", target, path]).silently();
    }

    /// `rm -rf PATH`.
    pub(crate) fn remove(&self, path: &str) {
        run(self.command(&["rm", "-rf", path])).silently();
    }

    /// A command that runs in the container, from its root folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").args(words);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("TIDEGATE_PROFILE", self.build.profile());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        run(self.command(words))
    }

    /// Starts a command that stays.
    pub(crate) fn start(&self, name: &str, words: &[&str]) -> Program {
        Program::start(name, self.command(words))
    }

    /// Starts a command that stays, as process 1 of a process namespace of its own: it ends with all its children. The
    /// program's id is that of the command's parent; [`Container::init`] is the command itself.
    pub(crate) fn start_as_init(&self, name: &str, words: &[&str]) -> Program {
        let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        self.start(name, &[unshare.as_slice(), words].concat()).deaf()
    }

    /// The process that is number 1 in there, by the id it has outside.
    pub(crate) fn init(program: &Program) -> i32 {
        let mut found = None;
        wait::until("process 1 runs", wait::SOON, || {
            found = measure::children(program.pid()).first().copied();
            found.is_some()
        });
        found.expect("until it was found")
    }

    /// The words of `nginx ARGUMENTS`. A nginx in tidegate's place is told where the build would look for files.
    pub(crate) fn nginx_words<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let place: &[&str] = match self.build {
            _ if !replaced() => &[],
            Build::Docker => &["-p", "/etc/nginx", "-e", "/var/log/nginx/error.log"],
            Build::Debian => &[],
            Build::Homebrew => &[
                "-p",
                "/usr/local/opt/nginx",
                "-c",
                "/usr/local/etc/nginx/nginx.conf",
                "-e",
                "/usr/local/var/log/nginx/error.log",
            ],
        };
        [&["nginx"], place, arguments].concat()
    }

    /// Runs `nginx ARGUMENTS` to its end.
    pub(crate) fn nginx(&self, arguments: &[&str]) -> Ran {
        self.run(&self.nginx_words(arguments))
    }

    /// Starts `nginx ARGUMENTS`, which stays in the foreground.
    pub(crate) fn start_nginx(&self, arguments: &[&str]) -> Program {
        self.start("nginx", &self.nginx_words(arguments))
    }

    /// Where the master's process id is written when the configuration does not say.
    pub(crate) fn pid_file(&self) -> &'static str {
        if self.build == Build::Homebrew && !replaced() { "/usr/local/var/run/nginx.pid" } else { "/run/nginx.pid" }
    }

    /// The process id in that file; none before it is written.
    pub(crate) fn master(&self) -> Option<i32> {
        self.read(self.pid_file()).trim().parse().ok()
    }

    /// `ip WORDS`, as in `ip addr add …`.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) {
        let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
        self.run(&words).succeeded();
    }

    /// Waits until something listens on this port of 127.0.0.1.
    #[track_caller]
    pub(crate) fn wait_for_port(&self, port: u16) {
        self.wait_for(&format!("127.0.0.1:{port}"));
    }

    /// Waits until something listens on this address.
    #[track_caller]
    pub(crate) fn wait_for(&self, address: &str) {
        let address = address.parse().expect("address:port");
        wait::until(&format!("{address} is served"), wait::SOON, || wait::connectable(address));
    }

    /// Whether something listens on this unix socket.
    pub(crate) fn listens_at(&self, path: &str) -> bool {
        // Not where symlinks to absolute paths lead there: these would be followed on the machine itself.
        wait::unix_connectable(Path::new(&format!("/proc/{}/root{path}", self.holder.id())))
    }

    /// Whether something listens on this port of 127.0.0.1.
    pub(crate) fn listens(&self, port: u16) -> bool {
        wait::connectable(([127, 0, 0, 1], port).into())
    }

    /// Every process that runs in the container.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let holder = i32::try_from(self.holder.id()).expect("a process id");
        let own = namespace(holder);
        measure::processes().into_iter().filter(|pid| *pid != holder && namespace(*pid) == own).collect()
    }

    /// Opens a file. Symlinks are followed as the container sees them: one that leads to `/etc` leads to its own.
    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let root = File::open(format!("/proc/{}/root", self.holder.id()))?;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
        let file = openat2(&root, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)?;
        Ok(File::from(file))
    }

    /// From here on this thread, and what it starts, is in the container's network.
    fn enter(&mut self) {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("the container's network");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
    }

    /// What every installation has.
    fn furnish(&self) {
        self.run(&["sh", "-ec", FURNITURE]).succeeded();
        let config = match self.build {
            Build::Homebrew => "/usr/local/etc/nginx",
            Build::Docker | Build::Debian => "/etc/nginx",
        };
        self.copy_all("fixtures/stock/common", config);
        self.copy_all(&format!("fixtures/stock/{}", self.build.stock()), config);
        match self.build {
            Build::Docker => self.copy_all("fixtures/www", "/usr/share/nginx/html"),
            Build::Debian => {
                for folder in ["conf.d", "modules-enabled", "sites-enabled"] {
                    self.make_dir(&format!("/etc/nginx/{folder}"));
                }
                self.copy_all("fixtures/www", "/usr/share/nginx/html");
            }
            Build::Homebrew => {
                for folder in ["etc/nginx/servers", "opt/nginx", "var/log/nginx", "var/run/nginx"] {
                    self.make_dir(&format!("/usr/local/{folder}"));
                }
                self.copy_all("fixtures/www", "/usr/local/var/www");
                self.link("../../var/www", "/usr/local/opt/nginx/html");
            }
        }
    }

    fn kill_all(&self) {
        for _ in 0..100 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for pid in processes {
                program::send(pid, Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["/var/log/nginx/error.log", "/usr/local/var/log/nginx/error.log"] {
                // Where it is a symlink to the program's own output, nothing is read here, and the output is printed anyway.
                show(log, &self.read(log));
            }
        }
        self.kill_all();
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
    }
}

impl Build {
    fn profile(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Debian => "debian",
            Self::Homebrew => "homebrew",
        }
    }

    fn stock(self) -> &'static str {
        if self == Self::Debian { "debian-12" } else { self.profile() }
    }
}

fn parent(path: &str) -> &str {
    Path::new(path).parent().and_then(Path::to_str).expect("a parent")
}

/// Starts the process that holds the namespaces; else, what went wrong.
fn hold(place: &Scratch) -> Result<Child, String> {
    let errors = place.path().with_extension("errors");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--", "sh", "-ec", HOLD, "hold"]).arg(place.path()).arg(binary());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    command.arg(env!("CARGO_MANIFEST_DIR")).arg(target);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&errors).expect("a file"));
    let mut holder = command.spawn().map_err(|error| error.to_string())?;
    let mut ready = String::new();
    let output = holder.stdout.take().expect("piped");
    let read = BufReader::new(output).read_line(&mut ready);
    let said = fs::read_to_string(&errors).unwrap_or_default();
    let _ = fs::remove_file(&errors);
    if read.is_ok() && ready == "ready\n" {
        return Ok(holder);
    }
    let _ = holder.kill();
    let _ = holder.wait();
    Err(said)
}

/// `$1`: where to mount; `$2`: the program under test; the rest: folders that must be seen even where they lie on
/// another file system.
const HOLD: &str = r#"
mount --make-rprivate /
place=$1 binary=$2
shift 2
mount -t tmpfs -o mode=0755 tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
cd "$place/root"
for folder in proc sys dev; do mount --rbind "/$folder" "$folder"; done
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
for folder in "$@"; do
    mkdir -p "./$folder"
    mount --rbind "$folder" "./$folder"
done
if [ "$binary" != /usr/sbin/nginx ]; then
    [ -e usr/sbin/nginx ] || touch usr/sbin/nginx
    mount --bind "$binary" usr/sbin/nginx
fi
mkdir .machine
pivot_root . .machine
umount -l /.machine
rmdir /.machine
ip link set lo up
echo ready
exec cat
"#;

/// What is not to be seen of the machine's own nginx, and what an installation has: folders, users, name resolution.
const FURNITURE: &str = r"
rm -rf /etc/nginx /var/log/nginx /var/lib/nginx /var/cache/nginx /var/www /usr/share/nginx/html /usr/share/nginx/modules-available \
    /usr/local/etc/nginx /usr/local/opt/nginx /usr/local/var
mkdir -p /etc/nginx /var/log/nginx /var/lib/nginx /var/cache/nginx /run/lock
grep -q ^www-data: /etc/passwd || echo www-data:x:33:33::/var/www:/bin/false >>/etc/passwd
grep -q ^www-data: /etc/group || echo www-data:x:33: >>/etc/group
grep -q ^nginx: /etc/passwd || echo nginx:x:101:101::/nonexistent:/bin/false >>/etc/passwd
grep -q ^nginx: /etc/group || echo nginx:x:101: >>/etc/group
echo 'hosts: files dns' >/etc/nsswitch.conf
printf 'passwd: files\ngroup: files\n' >>/etc/nsswitch.conf
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
echo '127.0.0.1 localhost' >/etc/hosts
";
