; run: determinize{threshold=input}
; expect: metric gates-determinized == 2
; expect: metric skim-thresholds == 1
; expect: ops skim-recurrent == 1
; expect: ops random == 0
; expect: no remark determinize-skipped
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "words": f32[5,1,3], v2 "w": f32[1,24,3], v3 "r": f32[1,24,6], v4 "sw": f32[1,8,3], v5 "sr": f32[1,8,2], v6 "p": f32[9,2]) {
  v7 = const i64[2] [2, 3]
  v8 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v7 : f32[2,3]
  v9 = stochastic-gate{kind=binary, estimator=identity, sd=1.0} v0, v8 : f32[2,3]
  v10 = stochastic-gate{kind=smooth, estimator=derivative, sd=1.0} v9, v8 : f32[2,3]
  v11, v12, v13, v14 = skim-recurrent{cell=lstm, linear_before_reset=false, theta=0.5, temperature=0.5} v1, v2, v3, v4, v5, v6 : f32[5,1,1,6], f32[1,1,6], f32[1,1,6], f32[5,1]
  return v10 "y", v12 "h"
}
