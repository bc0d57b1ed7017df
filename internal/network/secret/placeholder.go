package secret

import (
	"crypto/rand"

	"github.com/smolvm/smolvm/api"
)

// alphabet is what a placeholder is made of: what no client encodes or breaks.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// leastRandom is how many random characters a placeholder has at least: nobody else writes them by accident.
const leastRandom = 20

// Placeholder makes a random one. It is as long as the value for which it stands, where that leaves room for enough chance:
// programs that look at a key's length are content, and a response in which it takes the value's place keeps its length.
func Placeholder(prefix string, length int) string {
	length = min(max(length, len(prefix)+leastRandom), api.MaxPlaceholderBytes)
	text := []byte(prefix)
	for len(text) < length {
		var b [64]byte
		_, _ = rand.Read(b[:]) // it never fails
		for _, c := range b {
			// What is beyond the last whole alphabet would make its first letters likelier.
			if int(c) < 256/len(alphabet)*len(alphabet) && len(text) < length {
				text = append(text, alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return string(text)
}
