package debian

import (
	"os"
	"testing"

	"github.com/smolvm/smolvm/internal/sys/nsinit"
)

// TestMain lets the test binary be the init of the build's namespaces, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == nsinit.Command {
		os.Exit(nsinit.Main())
	}
	os.Exit(m.Run())
}
