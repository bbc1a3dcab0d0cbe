; run: determinize{threshold=0.75}
; expect: metric skim-thresholds == 1
; expect: no remark determinize-skipped
planish-ir 1
graph @"main"(v0 "words": f32[5,1,3], v1 "w": f32[1,18,3], v2 "r": f32[1,18,6], v3 "sw": f32[1,6,3], v4 "sr": f32[1,6,2], v5 "p": f32[9,2]) {
  v6, v7, v8 = skim-recurrent{cell=gru, linear_before_reset=false, theta=0.5, temperature=0.5} v0, v1, v2, v3, v4, v5 : f32[5,1,1,6], f32[1,1,6], f32[5,1]
  return v7 "h"
}
