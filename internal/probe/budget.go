// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Budget is how much of a processor something may take, in thousandths of one core: 20 is 2 %.
type Budget uint32

// ParseBudget reads a share of a core as it is typed: "2%", "0.5%".
func ParseBudget(text string) (Budget, error) {
	number, found := strings.CutSuffix(strings.TrimSpace(text), "%")
	percent, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !found || err != nil || !(percent >= 0.1 && percent <= MaxBudget/10) {
		return 0, fmt.Errorf("--budget %.32q: want a share of a core, 0.1%% to %d%%", text, MaxBudget/10)
	}
	return Budget(percent*10 + 0.5), nil
}

// String is the share as people read it: "2%", "0.5%".
func (b Budget) String() string {
	return strconv.FormatFloat(float64(b)/10, 'f', -1, 64) + "%"
}

// Over says whether so much processor time within so much time is more than the budget.
func (b Budget) Over(cost, within time.Duration) bool {
	return cost > 0 && float64(cost)*1000 > float64(b)*float64(within)
}
