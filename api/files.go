package api

import "time"

// FileInfo describes one file in a guest.
type FileInfo struct {
	Name    string    `json:"name"`
	Path    string    `json:"path"`
	Type    string    `json:"type"` // "file", "dir", "symlink", "fifo", "socket", "char", "block"
	Size    int64     `json:"size"`
	Mode    uint32    `json:"mode"` // permission bits, with setuid, setgid and sticky as in stat(2)
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	ModTime time.Time `json:"mod_time"`
	Target  string    `json:"target,omitempty"` // of a symlink
}

// Metrics is what the guest says of itself. The guest is hostile: these are its claims.
type Metrics struct {
	UptimeMs        int64  `json:"uptime_ms"`
	CPUMs           int64  `json:"cpu_ms"`
	MemoryTotal     uint64 `json:"memory_total_bytes"`
	MemoryAvailable uint64 `json:"memory_available_bytes"`
	DiskTotal       uint64 `json:"disk_total_bytes"`
	DiskFree        uint64 `json:"disk_free_bytes"`
	// Processes are those of all commands, with their threads: what Config.MaxProcesses bounds.
	Processes       uint32 `json:"processes"`
	NetworkReceived uint64 `json:"network_received_bytes"` // since the boot
	NetworkSent     uint64 `json:"network_sent_bytes"`
	AgentRSS        uint64 `json:"agent_rss_bytes"`
	AgentPeakRSS    uint64 `json:"agent_peak_rss_bytes"`
}
