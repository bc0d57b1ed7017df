package lifecycle

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/docker/go-units"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/memory"
)

// Budget bounds what the VMs of a home may take of the host together. Beyond it a start is refused: a guest's memory is
// only taken as it is used, so that otherwise the host's out-of-memory killer would choose among them later.
type Budget struct {
	MemoryMiB int // 0 = nine tenths of the host's
	VMs       int // at once; 0 = any number
}

// Variables that set a Budget.
const (
	memoryVar = "SMOLVM_MAX_MEMORY"
	vmsVar    = "SMOLVM_MAX_VMS"
)

// overheadMiB is what a monitor and a supervisor take beside the guest's memory: 60 to 110 MiB measured under emulation,
// whose translated code is bounded to 64 MiB.
const overheadMiB = 128

// BudgetFromEnv reads the variables SMOLVM_MAX_MEMORY (8g, or MiB) and SMOLVM_MAX_VMS.
func BudgetFromEnv(get func(string) string) (Budget, error) {
	var b Budget
	if text := get(memoryVar); text != "" {
		mib, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			var bytes int64
			bytes, err = units.RAMInBytes(text)
			mib = bytes / units.MiB
		}
		if err != nil || mib <= 0 || mib > 1<<30 {
			return b, errdefs.Invalid.Errorf("%s: %q is no size", memoryVar, text).WithRemedy("export %s=8g", memoryVar)
		}
		b.MemoryMiB = int(mib)
	}
	if text := get(vmsVar); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n <= 0 {
			return b, errdefs.Invalid.Errorf("%s: %q is no number of VMs", vmsVar, text).WithRemedy("export %s=20", vmsVar)
		}
		b.VMs = int(n)
	}
	return b, nil
}

// reserve refuses a VM that goes beyond the budget. Until release is called no other start is weighed: the caller writes
// down that his VM is starting first.
func (m *Manager) reserve(ctx context.Context, rec store.Record) (release func(), err error) {
	l, err := lock.Exclusive(ctx, filepath.Join(m.store.Home(), "locks", "budget"))
	if err != nil {
		return nil, errdefs.Host.Errorf("lock the budget: %w", err)
	}
	release = func() { _ = l.Close() }
	if err := m.weigh(rec); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (m *Manager) weigh(rec store.Record) error {
	budget := m.opts.Budget
	if budget.MemoryMiB == 0 {
		now, err := memory.Now()
		if err != nil {
			return errdefs.Host.Errorf("how much memory has the host: %w", err)
		}
		budget.MemoryMiB = int(now.Total / units.MiB / 10 * 9)
	}
	ids, err := m.store.IDs()
	if err != nil {
		return err
	}
	vms, mib := 0, 0
	for _, id := range ids {
		other, err := m.store.Read(id)
		if err != nil || id == rec.Config.Config.ID || !other.State.State.Live() {
			continue // who cannot be read does not run for us
		}
		if held, err := m.store.Locked(id); err == nil && !held {
			continue // it has ended, and nobody has looked yet
		}
		vms++
		mib += other.Config.Config.MemoryMiB + overheadMiB
	}
	want := rec.Config.Config.MemoryMiB + overheadMiB
	switch {
	case budget.VMs > 0 && vms >= budget.VMs:
		return errdefs.Exhausted.Errorf("the VM %s is one too many: %d run, and %s is %d", rec.Config.Config.ID, vms, vmsVar, budget.VMs).
			WithRemedy("smolvm ls, then smolvm stop ID")
	case mib+want > budget.MemoryMiB:
		return errdefs.Exhausted.Errorf("the VM %s needs %s of memory with its monitor, %d VMs have %s, and the budget is %s", rec.Config.Config.ID,
			size(want), vms, size(mib), size(budget.MemoryMiB)).WithRemedy("smolvm ls, then smolvm stop ID; a smaller --memory; or export %s=SIZE", memoryVar)
	}
	return nil
}

func size(mib int) string { return fmt.Sprintf("%d MiB", mib) }
