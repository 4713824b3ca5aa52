// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Duty is how much of each second a probe is attached, in percent; 0: all of it.
type Duty uint32

// The least and the most that a Duty can be, other than 0: attaching and detaching take their time too.
const (
	MinDuty = 5
	MaxDuty = 95
)

// ParseDuty reads a share of time as it is typed: "20%".
func ParseDuty(text string) (Duty, error) {
	number, found := strings.CutSuffix(strings.TrimSpace(text), "%")
	percent, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	d := Duty(percent)
	if !found || err != nil || d.validate() != nil || d == 0 {
		return 0, fmt.Errorf("--duty %.32q: want the share of each second in which the probe is attached, %d%% to %d%%", text, MinDuty, MaxDuty)
	}
	return d, nil
}

func (d Duty) validate() error {
	if d != 0 && (d < MinDuty || d > MaxDuty) {
		return fmt.Errorf("--duty %v: want %d%% to %d%% of each second", d, MinDuty, MaxDuty)
	}
	return nil
}

// String is the share as people read it: "20%".
func (d Duty) String() string { return strconv.Itoa(int(d)) + "%" }

// Window is how long the probe is attached in each second.
func (d Duty) Window() time.Duration {
	if d == 0 {
		return time.Second
	}
	return time.Duration(d) * time.Second / 100
}
