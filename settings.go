package kfac

import (
	"fmt"
	"strings"
)

// A setting is an option's value, as a state is saved and compared with it.
type setting struct {
	option, value string
	form          bool // the sizes and the meaning of the factors depend on it
}

// settings lists the options that give the numbers of a state their meaning. What only watches or
// checks a training is left out.
func (c *config) settings() []setting {
	of := func(option string, values ...any) setting {
		return setting{option: option, value: strings.TrimSuffix(fmt.Sprintln(values...), "\n")}
	}
	form := func(option string, value any) setting {
		return setting{option: option, value: fmt.Sprint(value), form: true}
	}
	return []setting{
		form("WithBlockTridiagonal", c.tridiagonal),
		form("WithEKFAC", c.ekfac),
		form("WithExactDamping", c.exactDamping),
		form("WithMaxDim", c.maxDim),
		form("WithFullBlocks", c.fullBlock),
		form("WithWeightSharing", c.sharing),
		form("WithTimeCorrelation", c.timing),
		form("WithSpatiallyUncorrelated", c.uncorrelated),
		of("WithFisherEstimate", c.estimate),
		of("WithFisherSamples", c.samples),
		of("WithCurvatureEMA", c.ema),
		of("WithInverseUpdatePeriod", c.inversePeriod),
		of("WithBackgroundInverses", c.backgroundLag),
		of("WithStatisticsFraction", c.statsFraction),
		of("WithMinStatisticsCases", c.minStatsCases),
		of("WithL2Reg", c.l2),
		of("WithDamping", c.damping),
		of("WithWeightDecay", c.decay),
		of("WithClipNorm", c.clipNorm),
		of("WithNormConstraint", c.normLimit),
		of("WithLearningRate", c.learningRate),
		of("WithMomentum", c.momentum),
		of("WithSchedule", c.scheduled()),
		of("WithGroup", c.groups),
		of("WithInner", fmt.Sprintf("%T", c.inner)),
		of("WithoutMomentum", c.noMomentum),
		of("WithModelFraction", c.modelFraction),
		of("WithMinModelCases", c.minModelCases),
		of("WithStepRejection", c.reject),
		of("WithPaperRules", c.paperRules),
		of("WithoutLossCheck", !c.lossCheck),
		of("WithUndampedRho", c.undampedRho),
		of("WithDampingAdaptation", c.lambdaPeriod, c.lambdaDecay),
		of("WithGammaAdaptation", c.gammaPeriod, c.gammaDecay, c.gammaAgain),
		of("WithMaxGamma", c.maxGamma),
		of("WithIterateAveraging", c.averaging, c.averageFrom),
		of("WithSkipNotFinite", c.skipInRow),
		of("WithSeed", c.seed),
	}
}

// scheduled are the knobs that have a schedule.
func (c *config) scheduled() (all []Knob) {
	for i, s := range c.schedules {
		if s != nil {
			all = append(all, dials[i].Knob)
		}
	}
	return all
}

// otherSettings says which settings are others than those of a state, and whether one of them
// concerns the form of the factors.
func (c *config) otherSettings(saved func(option string) string) (differences string, form bool) {
	var list []string
	for _, s := range c.settings() {
		if was := saved(s.option); was != s.value {
			list = append(list, fmt.Sprintf("%s: %s in the file, %s here", s.option, was, s.value))
			form = form || s.form
		}
	}
	return strings.Join(list, "; "), form
}
