// Package budget decides whether the host has room for one more VM.
//
// Layer: below lifecycle. It may import errdefs and internal/sys.
package budget

import (
	"fmt"
	"strconv"

	"github.com/docker/go-units"

	"github.com/smolvm/smolvm/errdefs"
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

// FromEnv reads the variables SMOLVM_MAX_MEMORY (8g, or MiB) and SMOLVM_MAX_VMS.
func FromEnv(get func(string) string) (Budget, error) {
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

// VM is a VM as far as its room goes.
type VM struct {
	ID        string
	MemoryMiB int
}

// Admit refuses a VM that goes beyond the budget together with those that run, with the figures.
func (b Budget) Admit(vm VM, running []VM) error {
	if b.MemoryMiB == 0 {
		now, err := memory.Now()
		if err != nil {
			return errdefs.Host.Errorf("how much memory has the host: %w", err)
		}
		b.MemoryMiB = int(now.Total / units.MiB / 10 * 9)
	}
	taken := 0
	for _, r := range running {
		taken += r.MemoryMiB + overheadMiB
	}
	want := vm.MemoryMiB + overheadMiB
	switch {
	case b.VMs > 0 && len(running) >= b.VMs:
		return errdefs.Exhausted.Errorf("the VM %s is one too many: %d run, and %s is %d", vm.ID, len(running), vmsVar, b.VMs).
			WithRemedy("smolvm ls, then smolvm stop ID")
	case taken+want > b.MemoryMiB:
		return errdefs.Exhausted.Errorf("the VM %s needs %s of memory with its monitor, %d VMs have %s, and the budget is %s", vm.ID,
			size(want), len(running), size(taken), size(b.MemoryMiB)).
			WithRemedy("smolvm ls, then smolvm stop ID; a smaller --memory; or export %s=SIZE", memoryVar)
	}
	return nil
}

func size(mib int) string { return fmt.Sprintf("%d MiB", mib) }
