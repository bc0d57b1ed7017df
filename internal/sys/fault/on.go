//go:build faults

package fault

import (
	"os"
	"syscall"
)

// variable names the step at which a process is killed: "step" is the process that comes there, "step:child" the one that
// the step is about.
const variable = "SMOLVM_FAULT"

// Point names a step. pid, where there is one, is the process that the step is about.
func Point(step string, pid ...int) {
	switch os.Getenv(variable) {
	case step:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case step + ":child":
		for _, p := range pid {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
	}
}
