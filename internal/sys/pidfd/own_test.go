package pidfd

import (
	"errors"
	"os"
	"testing"
)

func TestOwnStartTicks(t *testing.T) {
	want, err := StartTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OwnStartTicks(os.Getpid()); err != nil || got != want {
		t.Errorf("ourselves: %d, want %d, %v", got, want, err)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := OwnStartTicks(pid); !errors.Is(err, ErrGone) {
			t.Errorf("%d: %v", pid, err)
		}
	}
	if os.Geteuid() != 0 {
		if _, err := OwnStartTicks(1); !errors.Is(err, ErrForeign) {
			t.Errorf("process 1: %v", err)
		}
	}
	for text, want := range map[string]int{"Name:\tUid:\nUid:\t1\t2\t3\t4\n": 2, "Name:\tx\n": -1, "Uid:\t1\n": -1, "Uid:\tx\ty\tz\tw\n": -1} {
		got, err := effectiveUID([]byte(text))
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
