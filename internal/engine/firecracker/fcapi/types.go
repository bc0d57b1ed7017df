package fcapi

// The resources of Firecracker's API, as far as we use them. It refuses a field that it does not know, so what is not
// needed is not sent, and what a version lacks is not there: see Features.

// MachineConfig is the processors and the memory.
type MachineConfig struct {
	CPUs      int `json:"vcpu_count"`
	MemoryMiB int `json:"mem_size_mib"`
}

// BootSource is what boots.
type BootSource struct {
	Kernel  string `json:"kernel_image_path"`
	Initrd  string `json:"initrd_path,omitempty"`
	Cmdline string `json:"boot_args"`
}

// The ways in which a drive treats the guest's flushes.
const (
	CacheWriteback = "Writeback" // a flush is an fsync
	CacheUnsafe    = "Unsafe"    // a flush is nothing
)

// Drive is a disk.
type Drive struct {
	ID       string       `json:"drive_id"`
	Path     string       `json:"path_on_host"`
	Root     bool         `json:"is_root_device"`
	ReadOnly bool         `json:"is_read_only"`
	Cache    string       `json:"cache_type,omitempty"`
	Limiter  *RateLimiter `json:"rate_limiter,omitempty"`
}

// RateLimiter is a device's limit.
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"`
	Ops       *TokenBucket `json:"ops,omitempty"`
}

// TokenBucket gives out Size tokens, bytes or operations, per RefillMs.
type TokenBucket struct {
	Size     int64 `json:"size"`
	RefillMs int64 `json:"refill_time"`
}

// NetworkInterface is a card, whose wire is the TAP called HostDevice.
type NetworkInterface struct {
	ID         string       `json:"iface_id"`
	HostDevice string       `json:"host_dev_name"`
	MAC        string       `json:"guest_mac,omitempty"`
	MTU        int          `json:"mtu,omitempty"` // Features.MTU
	RX         *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TX         *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

// Vsock is the socket device. Path is where Firecracker listens for the host.
type Vsock struct {
	CID  uint32 `json:"guest_cid"`
	Path string `json:"uds_path"`
}

// Entropy is the random number device.
type Entropy struct{}

// The states to which a machine is set.
const (
	StatePaused  = "Paused"
	StateResumed = "Resumed"
)

// SnapshotCreate is a full snapshot.
type SnapshotCreate struct {
	Type   string `json:"snapshot_type"`
	State  string `json:"snapshot_path"`
	Memory string `json:"mem_file_path"`
}

// SnapshotLoad is what a machine goes on from. Its memory is mapped copy-on-write.
type SnapshotLoad struct {
	State    string            `json:"snapshot_path"`
	Memory   MemoryBackend     `json:"mem_backend"`
	Resume   bool              `json:"resume_vm"`
	Networks []NetworkOverride `json:"network_overrides,omitempty"`
}

// MemoryBackend is where a snapshot's memory lies.
type MemoryBackend struct {
	Type string `json:"backend_type"` // "File"
	Path string `json:"backend_path"`
}

// NetworkOverride gives a restored card another TAP.
type NetworkOverride struct {
	ID         string `json:"iface_id"`
	HostDevice string `json:"host_dev_name"`
}

// InstanceInfo is what Firecracker says of itself.
type InstanceInfo struct {
	ID      string `json:"id"`
	State   string `json:"state"` // "Not started", "Running", "Paused"
	Version string `json:"vmm_version"`
	App     string `json:"app_name"`
}
