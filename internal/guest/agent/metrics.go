package agent

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/proto"
)

// Metrics says how the guest is.
func (a *Agent) Metrics(context.Context, *connect.Request[proto.MetricsRequest]) (*connect.Response[proto.MetricsResponse], error) {
	m := &proto.MetricsResponse{UptimeMs: uptime().Milliseconds()}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.Processes = uint32(info.Procs)
	}
	mem := fields("/proc/meminfo")
	m.MemoryTotal, m.MemoryAvailable = mem["MemTotal"], mem["MemAvailable"]
	self := fields("/proc/self/status")
	m.AgentRss, m.AgentPeakRss = self["VmRSS"], self["VmHWM"]
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err == nil {
		m.DiskTotal, m.DiskFree = st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize) //nolint:gosec // positive
	}
	m.CpuMs = cpuMs()
	m.NetworkReceived, m.NetworkSent = counters("/proc/net/dev")
	a.mu.Lock()
	runner := a.runner
	a.mu.Unlock()
	if runner != nil {
		if n, ok := runner.Tasks(); ok {
			m.Processes = n
		}
	}
	return connect.NewResponse(m), nil
}

// fields reads the "Name: N kB" lines of a file in /proc, in bytes.
func fields(path string) map[string]uint64 {
	values := map[string]uint64{}
	b, err := os.ReadFile(path)
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			continue
		}
		if n, err := strconv.ParseUint(f[0], 10, 54); err == nil {
			values[name] = n << 10
		}
	}
	return values
}

// counters are the bytes that the network's card received and sent. In a line of /proc/net/dev they are the first and the
// ninth of 16 numbers.
func counters(path string) (received, sent uint64) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); strings.TrimSpace(name) == "eth0" && len(f) == 16 {
			received, _ = strconv.ParseUint(f[0], 10, 63)
			sent, _ = strconv.ParseUint(f[8], 10, 63)
		}
	}
	return received, sent
}

// cpuMs is the time that all processors worked.
func cpuMs() int64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	const msPerTick = 10 // USER_HZ is 100 in every kernel's interface
	var ticks int64
	for i, f := range strings.Fields(string(line)) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, and guest time, which user time contains
			continue
		}
		if n, err := strconv.ParseInt(f, 10, 54); err == nil {
			ticks += n
		}
	}
	return ticks * msPerTick
}
