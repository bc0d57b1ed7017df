package debian

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/sys/nsinit"
)

// buildCommand makes the test binary a program that builds: `buildCommand SCRATCH MEMORY`.
const buildCommand = "build-for-test"

// TestMain lets the test binary be the init of the build's namespaces, as the program is, and a victim to kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == nsinit.Command {
		os.Exit(nsinit.Main())
	}
	if len(os.Args) == 4 && os.Args[1] == buildCommand {
		os.Exit(buildForTest(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// buildForTest builds to nowhere and prints its progress.
func buildForTest(scratch, memory string) int {
	a, err := apt.NewArchive(os.Getenv("SMOLVM_DEBIAN_MIRROR"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	free, err := strconv.ParseInt(memory, 10, 64)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	b := Builder{Archive: a, memory: free}
	_, err = b.Build(context.Background(), image.BuildRequest{
		Scratch: scratch, Progress: func(p api.Progress) { fmt.Println(p.Detail) },
	}, io.Discard)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
