// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
)

// Group reads the key of a group of a plan that counts by its one field. An error says that the key is not one of this plan; it
// holds no byte of the key.
func (d *Decoder) Group(key []byte) (event.Value, error) {
	if len(d.fields) != 1 || !d.fields[0].emits {
		return event.Value{}, errors.New("decode group: the plan counts by no value")
	}
	f := &d.fields[0]
	rest := values(key)
	r, err := rest.next(min(f.max, len(key)-plan.ValueHeaderBytes))
	if err != nil {
		return event.Value{}, fmt.Errorf("decode group: %w", err)
	}
	v := f.value
	f.decode(&v, r)
	return v, nil
}
