//! The real NVML code on the fake driver's library, through the agent's binary.

mod fake;

use fake::{Scenario, Watcher, agent, health, library, others_fine};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn eight() -> Value {
    json!({"count": 8})
}

/// Eight chips, of which the third differs.
fn third(differs: Value) -> Value {
    json!({"count": 8, "chips": [{}, {}, differs]})
}

#[test]
fn it_reads_what_eight_chips_are_and_measure() {
    let peers = json!({"count": 8, "driver_version": "580.95.05", "chips": [{"link_peers": [1]}]});
    let scenario = Scenario::new(peers);
    let mut once = agent();
    once.arg("--once").arg("--nvml-library").arg(library()).env("CHIPTIDE_FAKE_NVML", scenario.path());
    let output = once.output().expect("it runs");
    let reading: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(reading["driver_version"], "580.95.05");
    let chips = reading["chips"].as_array().expect("chips");
    assert!(others_fine(chips, usize::MAX), "{reading:#}");
    let chip = &chips[5];
    assert!(chip["id"].as_str().expect("an id").starts_with("GPU-"));
    assert_eq!((&chip["vendor"], &chip["product"]), (&json!("nvidia"), &json!("NVIDIA H20")));
    assert_eq!((&chip["memory_mib"], &chip["numa_node"]), (&json!(97_871), &json!(1)));
    assert_eq!(chip["pci_bus_id"], "00000000:60:00.0");
    let expected = json!({"utilization": 0.0, "memory_used_mib": 1, "power_watts": 74.0, "temperature_celsius": 33.0,
        "clock_mhz": 345, "memory_clock_mhz": 2619, "ecc_corrected": 0, "ecc_uncorrected": 0, "processes": []});
    assert_eq!(chip["reading"], expected);
    assert_eq!(
        (&chips[0]["link_peers"], &chips[1]["link_peers"]),
        (&json!([chips[1]["id"]]), &json!([chips[0]["id"]]))
    );
}

#[test]
fn a_process_is_listed_with_its_lease_while_it_lives_and_its_memory_a_little_longer() {
    let scenario = Scenario::new(json!({"count": 8, "defaults": {"linger_ms": 1500}}));
    let watcher = Watcher::start(&scenario);
    let lease = "00000000-0000-0000-0000-00000000002a";
    let mut job = Command::new("sleep").arg("600").env("CHIPTIDE_LEASE_ID", lease).spawn().expect("a job");
    scenario.work(job.id(), 2, 40_000);
    let listed = json!([{"pid": job.id(), "memory_mib": 40_000}]);
    let chips = watcher.until("the process", |chips| chips[2]["reading"]["processes"] == listed);
    assert_eq!(chips[2]["owners"], json!({job.id().to_string(): lease}));
    assert_eq!(chips[2]["reading"]["memory_used_mib"], 40_001);
    assert!(others_fine(&chips, 2) && chips[3]["reading"]["processes"] == json!([]));
    job.kill().expect("killed");
    job.wait().expect("reaped");
    let chips = watcher.until("an empty list", |chips| chips[2]["reading"]["processes"] == json!([]));
    assert_eq!(chips[2]["reading"]["memory_used_mib"], 40_001, "memory outlives the process");
    watcher.until("idle memory", |chips| chips[2]["reading"]["memory_used_mib"] == 1);
}

#[test]
fn a_lost_chip_is_unhealthy_and_the_others_are_not() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    let before = watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    scenario.set(third(json!({"lost": true})));
    let chips = watcher.until("the loss", |chips| health(&chips[2]).0 == "unhealthy" && others_fine(chips, 2));
    assert!(health(&chips[2]).1.contains("chip lost"));
    assert_eq!((&chips[2]["id"], &chips[2]["serial"]), (&before[2]["id"], &before[2]["serial"]), "facts are kept");
    assert_eq!(chips[2]["reading"], json!({}), "nothing measured");
    scenario.set(eight());
    watcher.until("its return", |chips| others_fine(chips, usize::MAX));
}

#[test]
fn a_chip_the_driver_no_longer_counts_stays_as_lost() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    let before = watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    scenario.set(third(json!({"absent": true})));
    let chips = watcher.until("the loss", |chips| health(&chips[2]).0 == "unhealthy" && others_fine(chips, 2));
    let ids = |chips: &[Value]| chips.iter().map(|chip| chip["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&chips), ids(&before));
}

#[test]
fn a_slow_chip_is_unreadable_and_holds_nobody_up() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    scenario.set(third(json!({"delay_ms": 2500})));
    let chips = watcher.until("the slow one", |chips| health(&chips[2]).0 == "unreadable" && others_fine(chips, 2));
    assert!(health(&chips[2]).1.contains("in time"));
    assert_eq!(chips[2]["reading"], json!({}));
    scenario.set(eight());
    watcher.until("its return", |chips| others_fine(chips, usize::MAX));
}

#[test]
fn a_call_that_fails_costs_what_it_should() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    let fails = |call: &str, code: u32| scenario.set(third(json!({"errors": {call: code}})));
    for call in
        ["nvmlDeviceGetUUID", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"]
    {
        fails(call, 999);
        let chips = watcher.until(call, |chips| health(&chips[2]).0 == "unreadable" && others_fine(chips, 2));
        assert_eq!(chips[2]["reading"], json!({}), "{call}");
        scenario.set(eight());
        watcher.until("its return", |chips| others_fine(chips, usize::MAX));
    }
    // A number the chip does not have, or does not tell, is simply absent.
    for code in [3, 999] {
        fails("nvmlDeviceGetTemperature", code);
        let absent =
            |chips: &[Value]| others_fine(chips, usize::MAX) && chips[2]["reading"]["temperature_celsius"].is_null();
        watcher.until("no temperature", absent);
        scenario.set(eight());
        watcher.until("its return", |chips| chips[2]["reading"]["temperature_celsius"] == 33.0);
    }
    fails("nvmlDeviceGetPowerUsage", 15);
    watcher.until("a loss noticed late", |chips| health(&chips[2]).0 == "unhealthy" && others_fine(chips, 2));
}

#[test]
fn the_driver_may_hold_something_against_a_chip() {
    let scenario = Scenario::new(third(json!({"recovery_action": 2})));
    let watcher = Watcher::start(&scenario);
    let chips = watcher.until("the wish", |chips| health(&chips[2]).0 == "unhealthy" && others_fine(chips, 2));
    assert!(health(&chips[2]).1.contains("reboot"));
    assert!(chips[2]["reading"]["power_watts"].is_number(), "it still measures");
    scenario.set(third(json!({"remap_failed": true})));
    watcher.until("worn memory", |chips| health(&chips[2]).1.contains("row remapping"));
    scenario.set(third(json!({"remap_pending": true})));
    watcher.until("pending is no fault", |chips| others_fine(chips, usize::MAX));
}

#[test]
fn a_list_of_garbage_is_no_list_and_a_ghost_is_somebody() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    scenario.set(third(json!({"processes": [{"pid": 4_000_000_000_u32, "mib": 1}]})));
    watcher.until("garbage", |chips| chips.len() == 8 && health(&chips[2]).1.contains("garbage"));
    scenario.set(third(json!({"processes": [{"pid": 1, "mib": 5, "graphics": true}, {"pid": 2}]})));
    let listed = json!([{"pid": 1, "memory_mib": 5}, {"pid": 2}]);
    watcher.until("both lists", |chips| chips[2]["reading"]["processes"] == listed);
}

#[test]
fn a_torn_scenario_keeps_the_last_good_one() {
    let scenario = Scenario::new(eight());
    let watcher = Watcher::start(&scenario);
    watcher.until("eight chips", |chips| others_fine(chips, usize::MAX));
    scenario.tear("{\"count\": 8, \"chi");
    watcher.until_said("keeps its last good state");
    watcher.until("eight chips still", |chips| others_fine(chips, usize::MAX));
    // What a reader knows of a chip it does not read again; another uuid is another chip in its place.
    scenario.set(third(json!({"name": "NVIDIA H200", "uuid": "GPU-new"})));
    watcher.until("the new chip", |chips| {
        chips.iter().any(|chip| chip["id"] == "GPU-new" && chip["product"] == "NVIDIA H200")
    });
}

#[test]
fn without_a_driver_it_says_so_in_one_line_and_ends() {
    let missing = "/nowhere/libnvidia-ml.so.1";
    let output = agent().args(["--token", "t", "--nvml-library", missing]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.lines().count() == 1 && said.contains(missing) && said.contains("--allow-no-chips"), "{said}");
    let output = agent().args(["--once", "--allow-no-chips", "--nvml-library", missing]).output().expect("it runs");
    let reading: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success() && reading["chips"] == json!([]));
}

#[test]
fn a_signal_ends_it_well_though_the_daemon_is_away() {
    let scenario = Scenario::new(eight());
    let mut command = agent();
    // Port 9 discards; on a test machine nobody listens there.
    command.args(["--daemon", "http://127.0.0.1:9", "--token", "t", "--node", "n1"]);
    command.arg("--nvml-library").arg(library()).env("CHIPTIDE_FAKE_NVML", scenario.path());
    let mut running = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = std::io::BufReader::new(running.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("does not answer") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).expect("text") > 0, "it ended by itself");
    }
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(running.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "daemn = \"http://x\"\n").expect("written");
    let output = agent().arg("--print-config").arg("--config").arg(&file).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("daemn") && said.contains("agent.toml"), "{said}");
    std::fs::write(&file, "rack = \"file\"\nnode = \"file\"\ncpu_milli = 1\n").expect("written");
    let mut command = agent();
    command.arg("--print-config").arg("--config").arg(&file).args(["--node", "flag"]);
    command.env("CHIPTIDE_AGENT_NODE", "environment").env("CHIPTIDE_AGENT_RACK", "environment");
    let said = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
    for line in ["node = \"flag\"", "rack = \"environment\"", "cpu_milli = 1", "sample_every = \"2s\""] {
        assert!(said.lines().any(|told| told == line), "{line} in {said}");
    }
}
