package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// kind is what a key's value looks like.
type kind int

const (
	text    kind = iota
	path         // a file, from the configuration's own directory on
	program      // the same, or the name of one in PATH
	number       // a whole one
	size         // text or a number
	boolean      // true or false
	list
	variables // names with values
)

// key is something that the file may set: what a flag of run and create is if it is not given, or what an environment
// variable is if it is not set.
type key struct {
	name    string
	kind    kind
	flag    string // of run and create
	env     string
	builtIn string // what holds without it, for people
	doc     string
	check   func(string) error // of what no flag checks
}

// vm begins the names of keys that are flags of run and create.
const vm = "vm."

// keys is the one table of what there is, in the order in which it is shown.
func keys() []key {
	flags := []key{
		{kind: text, flag: "image", builtIn: api.DefaultImage, doc: "the image that VMs boot"},
		{kind: number, flag: "cpus", builtIn: fmt.Sprint(api.DefaultCPUs), doc: "processors of a VM"},
		{kind: number, flag: "cpu-share", doc: "percent of one of the host's processors that a VM may use"},
		{kind: size, flag: "memory", builtIn: fmt.Sprintf("%dm", api.DefaultMemoryMiB), doc: "memory of a VM: 512m, 2g, or a number of MiB"},
		{kind: size, flag: "disk", builtIn: fmt.Sprintf("%dm", api.DefaultDiskMiB), doc: "size of the writable disk: 20g, or a number of MiB"},
		{kind: size, flag: "disk-rate", doc: "what the disk reads and writes per second: 20m, or a number of MiB"},
		{kind: number, flag: "disk-iops", doc: "requests per second to the disk"},
		{kind: number, flag: "max-processes", builtIn: "two per MiB of memory", doc: "processes of all commands in a VM together"},
		{kind: size, flag: "console-size", builtIn: fmt.Sprintf("%dm", api.DefaultConsoleMiB), doc: "how much of the kernel's console is kept"},
		{kind: size, flag: "log-size", builtIn: fmt.Sprintf("%dm", api.DefaultLogMiB), doc: "how much is kept of what the command of run -d prints"},
		{kind: size, flag: "output-size", builtIn: fmt.Sprintf("%dm", api.DefaultOutputMiB), doc: "how much of each command's output is kept for attach"},
		{kind: variables, flag: "env", doc: "variables of all commands, under those of --env-file and -e"},
		{kind: text, flag: "workdir", doc: "where commands run"},
		{kind: text, flag: "user", builtIn: "root", doc: "who runs commands: name or uid[:gid]"},
		{kind: boolean, flag: "require-accel", builtIn: "false", doc: "refuse emulation, which is no security boundary"},
		{kind: boolean, flag: "require-confinement", builtIn: "false", doc: "refuse a host on which a wall around the VM's processes is missing"},
		{kind: boolean, flag: "no-host-cas", builtIn: "false", doc: "do not trust the certificate authorities that the host's administrator added"},
		{kind: size, flag: "boot-timeout", builtIn: "60s, emulated 300s", doc: "how long a start may take: 90s, or a number of seconds"},
		{kind: size, flag: "ttl", doc: "stop a VM that has run for so long: 2h, or a number of seconds"},
		{kind: size, flag: "idle", doc: "stop a VM that nobody asked anything of for so long; 10m=pause or 10m=rm do that instead"},
		{kind: text, flag: "net", builtIn: "open", doc: "mode of the network: open, none or allow"},
		{kind: list, flag: "deny", doc: "what VMs may not reach, asked before what they may: HOST[:PORTS][/udp], *.HOST, ADDRESS or RANGE"},
		{kind: list, flag: "allow", doc: "what VMs may reach, in the same form"},
		{kind: path, flag: "policy", doc: "a file with the network's policy, instead of net, allow and deny"},
		{kind: list, flag: "dns", doc: "resolvers of VMs"},
		{kind: number, flag: "net-max-conns", doc: "connections of a VM at once"},
		{kind: number, flag: "net-max-new", doc: "new connections of a VM per second"},
		{kind: number, flag: "net-max-dns", doc: "questions for names of a VM per second"},
		{kind: text, flag: "net-rate", doc: "bytes per second of a VM's network, each way: 500k, 10m"},
	}
	for i := range flags {
		flags[i].name = vm + strings.ReplaceAll(flags[i].flag, "-", "_")
	}
	return append([]key{
		{name: "home", kind: path, env: "SMOLVM_HOME", builtIn: "~/.local/share/smolvm", doc: "where VMs and images are"},
		{name: "max_memory", kind: size, env: "SMOLVM_MAX_MEMORY", builtIn: "nine tenths of the host's", doc: "memory of all VMs together: 8g, or a number of MiB", check: func(s string) error { return new(value.Size).Set(s) }},
		{name: "max_vms", kind: number, env: "SMOLVM_MAX_VMS", doc: "VMs that may run at once", check: positive},
		{name: "debian_mirror", kind: text, env: "SMOLVM_DEBIAN_MIRROR", builtIn: "Debian's own", doc: "where packages for images come from"},
		{name: "dns", kind: list, env: "SMOLVM_DNS", builtIn: "the host's", doc: "resolvers for VMs whose policy names none"},
		{name: "engine", kind: text, env: "SMOLVM_ENGINE", builtIn: "auto", doc: "what runs VMs: firecracker, qemu or auto"},
		{name: "firecracker", kind: program, env: "SMOLVM_FIRECRACKER", builtIn: "that installed", doc: "the Firecracker to use"},
		{name: "qemu", kind: program, env: "SMOLVM_QEMU", builtIn: "that in PATH", doc: "the QEMU to use"},
	}, flags...)
}

func positive(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 {
		return fmt.Errorf("%s is no number of at least 1", s)
	}
	return nil
}

// exclusive are flags of which those that are given on the command line put all of the file's out of force: together they
// say what a VM may reach.
func exclusive() []string { return []string{"net", "allow", "deny", "policy"} }
