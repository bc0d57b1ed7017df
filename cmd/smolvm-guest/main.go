// Command smolvm-guest is the agent inside the guest: its first process.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/smolvm/smolvm/internal/guest/agent"
)

// build is what Hello says; the linker may set it.
var build = "dev"

func main() {
	if err := agent.Main(context.Background(), build); err != nil {
		fmt.Fprintln(os.Stderr, "smolvm-guest:", err)
		os.Exit(1)
	}
}
