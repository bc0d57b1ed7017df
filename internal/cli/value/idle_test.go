package value

import (
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

func TestIdle(t *testing.T) {
	tests := []struct {
		text   string
		after  time.Duration
		action api.IdleAction
		ok     bool
	}{
		{"10m", 10 * time.Minute, api.IdleStop, true},
		{"90=pause", 90 * time.Second, api.IdlePause, true},
		{"1h=rm", time.Hour, api.IdleRemove, true},
		{"1h=", 0, "", false},
		{"1h=explode", 0, "", false},
		{"=stop", 0, "", false},
		{"0", 0, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var i Idle
			err := i.Set(tt.text)
			if (err == nil) != tt.ok || tt.ok && (time.Duration(i.Duration) != tt.after || i.Action != tt.action) {
				t.Errorf("%+v, %v", i, err)
			}
		})
	}
}
