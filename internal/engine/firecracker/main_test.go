package firecracker

import (
	"os"
	"testing"

	"github.com/smolvm/smolvm/internal/engine/firecracker/fcfake"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// The test program is the launcher, too, which the engine re-executes; and the monitor that is launched.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launch.Command {
		os.Exit(launch.Main())
	}
	if fcfake.Is(os.Args) {
		os.Exit(fcfake.Main(os.Args))
	}
	os.Exit(m.Run())
}
