package lifecycle

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/store"
)

// Stats tells what a VM uses: what its guest says, and what it costs the host. A guest that is paused says nothing.
func (m *Manager) Stats(ctx context.Context, id string) (api.Stats, error) {
	rec, err := m.settle(ctx, id)
	if err != nil {
		return api.Stats{}, err
	}
	s := api.Stats{
		VM: id, Time: time.Now().UTC(), State: rec.State.State, CPUs: rec.Config.Config.CPUs,
		MemoryLimit: uint64(rec.Config.Config.MemoryMiB) << 20, DiskLimit: uint64(rec.Config.Config.DiskMiB) << 20,
	}
	if st, err := os.Stat(m.store.Path(id, store.DiskFile)); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			s.HostDisk = uint64(sys.Blocks) * 512
		}
	}
	if !rec.State.State.Live() {
		return s, nil
	}
	if h, ok := handle(rec.State); ok {
		s.HostMemory += resident(h.PID)
	}
	if rec.State.Supervisor != nil {
		s.HostMemory += resident(rec.State.Supervisor.PID)
	}
	if rec.State.State != api.StateRunning {
		return s, nil
	}
	c, err := m.dial(ctx, id)
	if err != nil {
		return s, err
	}
	defer func() { _ = c.Close() }()
	guest, err := c.Metrics(ctx)
	if err == nil {
		s.Guest = &guest
	}
	return s, err
}

// resident is the memory of a process of ours that is in RAM, 0 when it is gone.
func resident(pid int) uint64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 50)
			return n << 10
		}
	}
	return 0
}
