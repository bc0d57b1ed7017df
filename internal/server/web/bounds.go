package web

import (
	"math"

	"github.com/smolvm/smolvm/api"
)

// bound is what a number may be; most 0 is no bound.
type bound struct{ least, most float64 }

// bounds are those of package api's fields that can be told without the others. A request beyond them is refused with the
// field's place; what Validate says besides still counts. 0 is the default nearly everywhere.
func bounds() map[string]bound {
	const duration = math.MaxInt64 / 1_000_000 // milliseconds that a time.Duration holds
	all := map[string]bound{
		"cpus": {0, api.MaxCPUs}, "memory_mib": {0, api.MaxMemoryMiB}, "disk_mib": {0, api.MaxDiskMiB}, "max_processes": {0, api.MaxProcesses},
		"console_mib": {0, api.MaxLogMiB}, "log_mib": {0, api.MaxLogMiB}, "output_mib": {0, api.MaxOutputMiB},
	}
	out := map[string]bound{
		"Config.disk_rate_mib": {0, api.MaxDiskRateMiB}, "Config.disk_iops": {0, api.MaxDiskIOPS}, "Config.cpu_share": {0, 100 * api.MaxCPUs},
		"Config.boot_timeout_ms": {0, duration}, "Config.ttl_ms": {0, duration}, "Config.idle_ms": {0, duration},
		"ExecRequest.timeout_ms": {0, duration}, "CommandRequest.max_output_bytes": {0, api.MaxOutputBytes},
		"Port.guest_port": {1, math.MaxUint16}, "Port.host_port": {0, math.MaxUint16},
		"NetworkPolicy.rate_kbps": {0, api.MaxRateKBps}, "NetworkPolicy.max_conns": {0, api.MaxConnsLimit},
		"NetworkPolicy.max_new_per_sec": {0, api.MaxPerSecLimit}, "NetworkPolicy.max_dns_per_sec": {0, api.MaxPerSecLimit},
		"TerminalSize.rows": {0, math.MaxUint16}, "TerminalSize.cols": {0, math.MaxUint16},
		"OwnerRequest.client_pid": {0, math.MaxInt32},
	}
	for name, b := range all {
		out["Config."+name], out["Limits."+name] = b, b
	}
	return out
}
