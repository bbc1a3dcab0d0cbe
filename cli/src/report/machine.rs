//! The machine that a report is from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What of a machine decides how fast programs are.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// The name of the processor.
    pub cpu: String,
    /// Physical cores that this process may use.
    pub cores: usize,
    /// Processors that this process may use.
    #[serde(default)]
    pub processors: usize,
    /// The instruction set that is compiled for.
    pub isa: String,
    /// Family, model, stepping and microcode of the processor.
    #[serde(default)]
    pub revision: String,
    /// Sizes of the caches of the first processor, from the first level on.
    #[serde(default)]
    pub caches: Vec<String>,
    /// Bytes of memory.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The operating system and its version.
    #[serde(default)]
    pub system: String,
    /// How the frequency of the first processor is chosen, if the system tells.
    #[serde(default)]
    pub governor: Option<String>,
    /// Whether it is a virtual machine.
    #[serde(default)]
    pub virtual_machine: bool,
    /// Processes that ran or waited in the last minute, when the command began.
    #[serde(default)]
    pub load: Option<f64>,
    /// Equal on machines with the same processor, caches and number of cores.
    #[serde(default)]
    pub fingerprint: String,
}

fn line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| field(&info, name);
        let cache = |i: usize| {
            let at = |what: &str| line(&format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{what}"));
            Some(format!("L{} {} {}", at("level")?, at("type")?.to_lowercase(), at("size")?))
        };
        let revision = ["cpu family", "model", "stepping", "microcode"].map(field);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let mut machine = Machine {
            cpu: field("model name"),
            cores: crate::engine::default_threads(),
            processors: crate::bench::pin::allowed().len(),
            isa: planish_rt::cpu::detect().name().to_owned(),
            revision: revision.join("-"),
            caches: (0..8).map_while(cache).collect(),
            memory_bytes: kilobytes.and_then(|t| t.parse::<u64>().ok()).map(|kb| kb * 1024),
            system: line("/proc/sys/kernel/osrelease").map_or_else(String::new, |r| format!("Linux {r}")),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: field("flags").split(' ').any(|f| f == "hypervisor"),
            load: line("/proc/loadavg").and_then(|t| t.split(' ').next()?.parse().ok()),
            fingerprint: String::new(),
        };
        let all = (&machine.cpu, &machine.revision, &machine.caches, machine.cores, &machine.isa);
        let digest = Sha256::digest(format!("{all:?}").as_bytes());
        machine.fingerprint = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        machine
    }
}

/// The value of a field of the first processor.
fn field(info: &str, name: &str) -> String {
    let value = |l: &str| {
        let (key, value) = l.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    info.lines().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_fingerprint_that_stays() {
        let (a, b) = (Machine::here(), Machine::here());
        assert_eq!(a.fingerprint, b.fingerprint);
        assert_eq!(a.fingerprint.len(), 16);
        assert!(a.cores >= 1 && a.processors >= 1);
        assert_eq!(field("model\t: 1\nmodel name : X : Y\n", "model name"), "X : Y");
        assert_eq!(field("", "model"), "");
    }
}
