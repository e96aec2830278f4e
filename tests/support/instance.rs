//! A process that serves, and what it tells.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

pub struct Instance {
    pub process: Child,
    pub address: SocketAddr,
    told: watch::Receiver<String>,
    /// Reads whatever it tells, so that it never waits for us.
    listener: Option<JoinHandle<()>>,
}

impl Instance {
    /// Has callscope serve with the settings of `command`, and waits until it listens.
    pub fn start(command: &mut Command) -> Self {
        Self::of(command.arg("serve"))
    }

    /// The same of a command that serves by another name.
    pub fn of(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (heard, told) = watch::channel(String::new());
        let hear = move |line: String| heard.send_modify(|told| *told += &(line + "\n"));
        let address = loop {
            let Some(line) = lines.next() else { panic!("serve ended:\n{}", *told.borrow()) };
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("callscope listens on http://") {
                break url.parse().unwrap();
            }
            hear(line);
        };
        let listener = std::thread::spawn(move || lines.map_while(Result::ok).for_each(hear));
        Self { process, address, told, listener: Some(listener) }
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn stop(self) {
        self.signal("-TERM");
        self.ended_with(0);
    }

    /// What it has told when it has ended like that.
    pub fn ended_with(mut self, code: i32) -> String {
        let ended = self.process.wait().unwrap();
        self.listener.take().unwrap().join().unwrap();
        let told = self.told();
        assert_eq!(ended.code(), Some(code), "{told}");
        told
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// What it has told until now.
    pub fn told(&self) -> String {
        self.told.borrow().clone()
    }

    pub fn has_told(&self, text: &str) -> bool {
        self.told.borrow().contains(text)
    }

    /// Waits until it has told this. Once it has ended it never will: then this fails.
    pub async fn tells(&self, text: &str) {
        let mut told = self.told.clone();
        let has_told = told.wait_for(|told| told.contains(text)).await.is_ok();
        assert!(has_told, "serve ended:\n{}", self.told());
    }

    /// Whether it has ended, and all that it told was read.
    pub fn is_over(&self) -> bool {
        self.listener.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub async fn get(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await
        };
        if let Err(error) = asked.await {
            panic!("no answer to {path}: {error}\n{}", self.told());
        }
        answer
    }

    /// Waits until it answers with `text`, however long that takes. Nobody answers any more once the process has ended: then this
    /// fails.
    pub async fn wait_for(&self, path: &str, text: &str) {
        until(async || self.get(path).await.contains(text)).await;
    }
}

impl Drop for Instance {
    /// A test that fails shows what was told, and leaves no process behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _gone = writeln!(std::io::stderr(), "{}", *self.told.borrow());
        }
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// As long as nothing takes that ever comes: what does not is to be told of before somebody ends the whole.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until something is so, which nobody tells: it is looked again and again, and the more seldom the longer it takes, because
/// looking takes time from those who are looked at.
pub async fn until(is_so: impl AsyncFn() -> bool) {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(5));
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "what is waited for does not come");
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
}
