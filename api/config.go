package api

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Defaults and limits of a VM's configuration.
const (
	DefaultImage     = "debian"
	DefaultCPUs      = 1
	DefaultMemoryMiB = 1024
	DefaultDiskMiB   = 8192

	MinMemoryMiB = 128
	MaxMemoryMiB = 1 << 20
	MaxCPUs      = 32
	MinDiskMiB   = 256
	MaxDiskMiB   = 256 * 1024

	MaxDiskRateMiB = 1 << 20
	MinDiskIOPS    = 10 // fewer, and a boot takes for ever
	MaxDiskIOPS    = 10_000_000
	MinCPUShare    = 1

	MinProcesses      = 16
	MaxProcesses      = 1 << 15
	DefaultConsoleMiB = 1
	DefaultLogMiB     = 16
	DefaultOutputMiB  = 1
	MaxLogMiB         = 1024 // of the console's too
	MaxOutputMiB      = 16
	// In the guest's memory: what is kept of one command's output may be a sixteenth of it, and a process is taken for 512 KiB.
	outputShare     = 16
	processesPerMiB = 2

	maxEnvBytes = 1 << 20
)

// Config is what a VM is made of, as its user asks for it. Zero values mean the default.
type Config struct {
	ID        string `json:"id"` // 1 to 63 of a-z, 0-9, _ and -; one is made up where it is empty
	Image     string `json:"image"`
	CPUs      int    `json:"cpus"`       // 1 to 32; default 1
	MemoryMiB int    `json:"memory_mib"` // from 128; default 1024
	DiskMiB   int    `json:"disk_mib"`   // 256 to 262144; default 8192
	// DiskRateMiB and DiskIOPS bound the writable disk's MiB and requests per second; 0 = no limit.
	DiskRateMiB int `json:"disk_rate_mib,omitempty"`
	DiskIOPS    int `json:"disk_iops,omitempty"`
	// CPUShare is how much the VM may use of the host's processors, in percent of one; 0 = as much as its own can.
	CPUShare int `json:"cpu_share,omitempty"`
	// MaxProcesses bounds the processes of all commands in the guest together; 0 = as many as its memory allows.
	MaxProcesses int `json:"max_processes,omitempty"`
	// ConsoleMiB and LogMiB bound what is kept on the host of the guest's console, and of the output of its main command; 0 =
	// 1 and 16.
	ConsoleMiB int `json:"console_mib,omitempty"`
	LogMiB     int `json:"log_mib,omitempty"`
	// OutputMiB is how much of a command's output is kept in the guest for those who attach; 0 = 1.
	OutputMiB int               `json:"output_mib,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	// Secrets are variables too, whose values stay outside of the VM: commands have placeholders.
	Secrets []Secret `json:"secrets,omitempty"`
	// Workdir and User are what commands get that name none themselves. Empty: root, in its home.
	Workdir string `json:"workdir,omitempty"`
	User    string `json:"user,omitempty"`
	// Engine is what runs the VM; "" or "auto": whichever fits.
	Engine string `json:"engine,omitempty"`
	// RequireAccel refuses emulation, which is no security boundary.
	RequireAccel bool `json:"require_accel,omitempty"`
	// RequireConfinement refuses a host that cannot put all of its walls around the VM's processes.
	RequireConfinement bool `json:"require_confinement,omitempty"`
	// BootTimeoutMs bounds the time from the VMM's start to the agent's hello; 0 = 60 s accelerated, 300 s emulated.
	BootTimeoutMs int64 `json:"boot_timeout_ms,omitempty"`
	// NoHostCAs keeps the certificate authorities that the host's administrator added out of the guest, which trusts them
	// otherwise.
	NoHostCAs bool `json:"no_host_cas,omitempty"`
	// Network is what the VM may reach, as it was asked for at first; Sandbox.Network is what is in force.
	Network NetworkPolicy `json:"network,omitzero"`
	// Ports are published from the first start on; Sandbox.Ports are what is published now.
	Ports []Port `json:"ports,omitempty"`
	// TTLMs is how long the VM may run before it is stopped; 0 = as long as it likes. Each start begins it anew.
	TTLMs int64 `json:"ttl_ms,omitempty"`
	// IdleMs is how long nobody may ask anything of it before IdleAction is done; 0 = as long as he likes.
	IdleMs     int64      `json:"idle_ms,omitempty"`
	IdleAction IdleAction `json:"idle_action,omitempty"` // default: stop
	// RootfsPath is an ext4 file that is attached read-only in place of an image, KernelPath a vmlinux in place of our kernel.
	RootfsPath string `json:"rootfs_path,omitempty"`
	KernelPath string `json:"kernel_path,omitempty"`
	// BootArgs are for the kernel's command line, as far as they do not say what we say there: see KernelArgs.
	BootArgs string `json:"boot_args,omitempty"`
	// AuthorizedKeys are public keys in OpenSSH's form that may log in as root; with any, the guest's sshd runs.
	AuthorizedKeys []string `json:"authorized_keys,omitempty"`
}

// IdleAction is what is done with a VM that nobody asks anything of.
type IdleAction string

// What may be done with it.
const (
	IdleStop   IdleAction = "stop"
	IdlePause  IdleAction = "pause"
	IdleRemove IdleAction = "rm"
)

// Limits are what can be changed of a VM afterwards, from its next start on. Zero values stay as they are.
type Limits struct {
	CPUs      int `json:"cpus,omitempty"`
	MemoryMiB int `json:"memory_mib,omitempty"`
	DiskMiB   int `json:"disk_mib,omitempty"` // it only grows

	MaxProcesses int `json:"max_processes,omitempty"`
	ConsoleMiB   int `json:"console_mib,omitempty"`
	LogMiB       int `json:"log_mib,omitempty"`
	OutputMiB    int `json:"output_mib,omitempty"`
}

// With returns c with other limits.
func (c Config) With(l Limits) (Config, error) {
	if l.DiskMiB != 0 && l.DiskMiB < c.DiskMiB {
		return c, errdefs.Invalid.Errorf("disk: it has %d MiB and does not shrink to %d", c.DiskMiB, l.DiskMiB)
	}
	c.CPUs, c.MemoryMiB, c.DiskMiB = cmp.Or(l.CPUs, c.CPUs), cmp.Or(l.MemoryMiB, c.MemoryMiB), cmp.Or(l.DiskMiB, c.DiskMiB)
	c.MaxProcesses, c.ConsoleMiB = cmp.Or(l.MaxProcesses, c.MaxProcesses), cmp.Or(l.ConsoleMiB, c.ConsoleMiB)
	c.LogMiB, c.OutputMiB = cmp.Or(l.LogMiB, c.LogMiB), cmp.Or(l.OutputMiB, c.OutputMiB)
	return c, c.Validate()
}

// validateSizes refuses limits of processes and of what is kept that cannot be.
func (c Config) validateSizes() error {
	if most := min(MaxProcesses, processesPerMiB*c.MemoryMiB); c.MaxProcesses != 0 && (c.MaxProcesses < MinProcesses || c.MaxProcesses > most) {
		return errdefs.Invalid.Errorf("max processes: %d is not within %d to %d, which is what %d MiB of memory have room for", c.MaxProcesses, MinProcesses, most, c.MemoryMiB)
	}
	if c.ConsoleMiB < 0 || c.ConsoleMiB > MaxLogMiB {
		return errdefs.Invalid.Errorf("console size: %d MiB is not within 1 to %d MiB", c.ConsoleMiB, MaxLogMiB)
	}
	if c.LogMiB < 0 || c.LogMiB > MaxLogMiB {
		return errdefs.Invalid.Errorf("log size: %d MiB is not within 1 to %d MiB", c.LogMiB, MaxLogMiB)
	}
	if most := min(MaxOutputMiB, c.MemoryMiB/outputShare); c.OutputMiB < 0 || c.OutputMiB > most {
		return errdefs.Invalid.Errorf("output size: %d MiB is not within 1 to %d MiB, which is what %d MiB of memory have room for", c.OutputMiB, most, c.MemoryMiB)
	}
	return nil
}

// WithDefaults returns c with every zero value replaced by its default. The id stays as it is.
func (c Config) WithDefaults() Config {
	if c.Image == "" && c.RootfsPath == "" {
		c.Image = DefaultImage
	}
	if c.CPUs == 0 {
		c.CPUs = DefaultCPUs
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = DefaultMemoryMiB
	}
	if c.DiskMiB == 0 {
		c.DiskMiB = DefaultDiskMiB
	}
	c.Network, c.Ports = c.Network.WithDefaults(), PortsWithDefaults(c.Ports)
	return c
}

// Validate refuses what cannot be, naming the field and its limits.
func (c Config) Validate() error {
	if err := ValidateID(c.ID); err != nil {
		return err
	}
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return errdefs.Invalid.Errorf("cpus: %d is not within 1 to %d", c.CPUs, MaxCPUs)
	}
	if c.MemoryMiB < MinMemoryMiB || c.MemoryMiB > MaxMemoryMiB {
		return errdefs.Invalid.Errorf("memory: %d MiB is not within %d to %d MiB", c.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	}
	if c.DiskMiB < MinDiskMiB || c.DiskMiB > MaxDiskMiB {
		return errdefs.Invalid.Errorf("disk: %d MiB is not within %d MiB to %d GiB", c.DiskMiB, MinDiskMiB, MaxDiskMiB/1024)
	}
	if c.DiskRateMiB < 0 || c.DiskRateMiB > MaxDiskRateMiB {
		return errdefs.Invalid.Errorf("disk rate: %d MiB per second is not within 1 to %d", c.DiskRateMiB, MaxDiskRateMiB)
	}
	if c.DiskIOPS != 0 && (c.DiskIOPS < MinDiskIOPS || c.DiskIOPS > MaxDiskIOPS) {
		return errdefs.Invalid.Errorf("disk iops: %d is not within %d to %d", c.DiskIOPS, MinDiskIOPS, MaxDiskIOPS)
	}
	if c.CPUShare != 0 && (c.CPUShare < MinCPUShare || c.CPUShare > 100*c.CPUs) {
		return errdefs.Invalid.Errorf("cpu share: %d %% is not within %d to %d %%, which is all of %d CPUs", c.CPUShare, MinCPUShare, 100*c.CPUs, c.CPUs)
	}
	if err := c.validateSizes(); err != nil {
		return err
	}
	if c.BootTimeoutMs < 0 {
		return errdefs.Invalid.Errorf("boot timeout: %d ms is negative", c.BootTimeoutMs)
	}
	if c.TTLMs < 0 || c.IdleMs < 0 {
		return errdefs.Invalid.Errorf("ttl, idle: %d ms and %d ms: neither may be negative", c.TTLMs, c.IdleMs)
	}
	switch c.IdleAction {
	case "", IdleStop, IdlePause, IdleRemove:
	default:
		return errdefs.Invalid.Errorf("idle: %q is none of stop, pause and rm", c.IdleAction)
	}
	if c.Workdir != "" && !strings.HasPrefix(c.Workdir, "/") {
		return errdefs.Invalid.Errorf("workdir: %q is not absolute", c.Workdir)
	}
	if err := c.Network.Validate(); err != nil {
		return err
	}
	if err := ValidatePorts(c.Ports); err != nil {
		return err
	}
	if err := c.validateBoot(); err != nil {
		return err
	}
	if err := ValidateEnv(c.Env); err != nil {
		return err
	}
	return ValidateSecrets(c.Secrets, c.Env)
}

var idPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$`)

// ValidateID refuses an id that is not 1 to 63 characters of a-z, 0-9, "_" and "-", beginning and ending with a letter
// or digit.
func ValidateID(id string) error {
	if !idPattern.MatchString(id) {
		return errdefs.Invalid.Errorf("id: %q is not 1 to 63 characters of a-z, 0-9, _ and -, with a letter or digit at both ends", id)
	}
	return nil
}

// Hostname is the guest's host name for id: RFC 1123 knows no "_".
func Hostname(id string) string { return strings.ReplaceAll(id, "_", "-") }

// ValidateEnv refuses names that no shell can set, and values that cannot be passed to a process.
func ValidateEnv(env map[string]string) error {
	total := 0
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return errdefs.Invalid.Errorf("env: %q is not a variable name", k)
		}
		if strings.Contains(v, "\x00") {
			return errdefs.Invalid.Errorf("env: the value of %s contains a NUL byte", k)
		}
		total += len(k) + len(v) + 2
	}
	if total > maxEnvBytes {
		return errdefs.Invalid.Errorf("env: %d bytes in all are more than %d", total, maxEnvBytes)
	}
	return nil
}
