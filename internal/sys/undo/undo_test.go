package undo

import (
	"slices"
	"testing"
)

func TestStack(t *testing.T) {
	tests := []struct {
		name    string
		release bool
		want    []int
	}{
		{"failed", false, []int{3, 2, 1}},
		{"succeeded", true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			func() {
				var s Stack
				defer s.Run()
				for i := range 3 {
					s.Add(func() { got = append(got, i+1) })
				}
				if tt.release {
					s.Release()
				}
			}()
			if !slices.Equal(got, tt.want) {
				t.Errorf("steps %v, want %v", got, tt.want)
			}
		})
	}
}
