package memory

import (
	"os"
	"testing"
)

func TestResident(t *testing.T) {
	if n := Resident(os.Getpid()); n < 1<<20 {
		t.Errorf("we have %d bytes", n)
	}
	if n := Resident(1 << 30); n != 0 {
		t.Errorf("nobody has %d bytes", n)
	}
}
